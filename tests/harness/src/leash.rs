//! Ends what this program has started, should the program end without doing so itself.
//!
//! A shell reads which processes there are from this program, and kills those that are left when
//! nobody holds the other end of its input any more: however the program ends, by a signal that none
//! can catch too.

use std::{
    io::Write as _,
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

/// Reads `+ID` and `-ID`; in the end kills what is left.
const KEEPER: &str = r#"
held=
while read -r word; do
  id=${word#?}
  others=
  for it in $held; do [ "$it" = "$id" ] || others="$others $it"; done
  held=$others
  case $word in +*) held="$held $id" ;; esac
done
[ -z "$held" ] || kill -KILL $held 2>/dev/null
"#;

/// A process that does not outlive this program; let go when dropped.
#[derive(Debug)]
pub struct Leash {
    id: u32,
}

impl Leash {
    /// Holds `child`, which is ended by whoever started it, or with this program.
    ///
    /// # Panics
    ///
    /// If there is no shell.
    #[must_use]
    pub fn of(child: &Child) -> Self {
        let id = child.id();
        keeper().say('+', id);
        Self { id }
    }

    /// Lets it go before it is dropped: it has ended, and its number may be another's.
    pub fn let_go(&self) {
        keeper().say('-', self.id);
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        self.let_go();
    }
}

/// The shell of this program.
fn keeper() -> MutexGuard<'static, Keeper> {
    static KEEPER: OnceLock<Mutex<Keeper>> = OnceLock::new();
    let keeper = KEEPER.get_or_init(|| Mutex::new(Keeper::start()));
    keeper.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
struct Keeper {
    shell: Child,
}

impl Keeper {
    fn start() -> Self {
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", KEEPER])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C is for the tests; what is left goes after them.
            .process_group(0);
        let shell = shell.spawn().expect("start a shell");
        Self { shell }
    }

    fn say(&mut self, verb: char, id: u32) {
        let input = self.shell.stdin.as_mut().expect("its input is piped");
        writeln!(input, "{verb}{id}").expect("tell a shell");
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt as _, process::ExitStatus};

    use rustix::process::Signal;

    use super::*;

    fn sleeper() -> Child {
        let mut sleep = Command::new("sleep");
        sleep.arg("600").spawn().unwrap()
    }

    fn signal(status: ExitStatus) -> Option<i32> {
        status.signal()
    }

    /// Goal: with the end of a program ends what it has started and not let go.
    /// Method: processes that are held, and some of them let go; the keeper's input is closed as by that
    /// end.
    #[test]
    fn what_is_held_ends_with_the_program() {
        let mut keeper = Keeper::start();
        let mut all: Vec<_> = (0..3).map(|_| sleeper()).collect();
        for child in &all {
            keeper.say('+', child.id());
        }
        keeper.say('-', all[1].id());
        drop(keeper.shell.stdin.take());
        assert!(keeper.shell.wait().unwrap().success());
        for held in [0, 2] {
            let status = all[held].wait().unwrap();
            assert_eq!(Some(Signal::KILL.as_raw()), signal(status));
        }
        assert!(all[1].try_wait().unwrap().is_none());
        all[1].kill().unwrap();
        all[1].wait().unwrap();
    }
}
