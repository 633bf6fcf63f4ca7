//! Points at which a test has the process end as by a crash.
//!
//! A point is nothing but for a build with the feature `crash-points`, which only tests make: no
//! setting and no caller reaches it in any other. There a point ends the process at once, by abort,
//! if a file of its name lies in `.gantry/crash` of the current folder. The file goes first, so the
//! next process gets past it, and whoever put it there sees that the point was reached.

use std::time::Duration;

/// Ends the process here if a test wants it.
#[inline]
pub fn point(name: &str) {
    #[cfg(feature = "crash-points")]
    armed::point(name);
    #[cfg(not(feature = "crash-points"))]
    let _ = name;
}

/// Does `work`; ends the process in the midst of it, a moment after its beginning, if a test wants
/// that.
#[inline]
pub async fn amid<T>(name: &str, work: impl Future<Output = T>) -> T {
    #[cfg(feature = "crash-points")]
    return armed::soon_amid(name, armed::MOMENT, work).await;
    #[cfg(not(feature = "crash-points"))]
    {
        let _ = name;
        work.await
    }
}

/// The same, `after` its beginning.
#[inline]
pub async fn soon_amid<T>(name: &str, after: Duration, work: impl Future<Output = T>) -> T {
    #[cfg(feature = "crash-points")]
    return armed::soon_amid(name, after, work).await;
    #[cfg(not(feature = "crash-points"))]
    {
        let _ = (name, after);
        work.await
    }
}

#[cfg(feature = "crash-points")]
mod armed {
    use std::{convert::Infallible, future, path::Path, time::Duration};

    use tokio::time;

    /// Where tests name the points that are to be reached.
    const FOLDER: &str = ".gantry/crash";

    /// Long enough for a request to be sent and worked at, and shorter than tests let an answer take.
    pub(super) const MOMENT: Duration = Duration::from_millis(300);

    pub(super) fn point(name: &str) {
        if std::fs::remove_file(Path::new(FOLDER).join(name)).is_ok() {
            std::process::abort();
        }
    }

    pub(super) async fn soon_amid<T>(
        name: &str,
        after: Duration,
        work: impl Future<Output = T>,
    ) -> T {
        let ended = async {
            time::sleep(after).await;
            point(name);
            future::pending::<Infallible>().await
        };
        tokio::select! {
            biased;
            done = work => done,
            never = ended => match never {},
        }
    }
}
