//! Who a program is.

/// Name and version of a service, taken from its manifest by
/// [`identity!`](crate::app::identity).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Name of the service, as other services and the registry know it.
    pub name: &'static str,
    /// Version of the program.
    pub version: &'static str,
    /// What it does, in one sentence.
    pub description: &'static str,
}

/// The [`Identity`](crate::app::Identity) of the crate it is written in, from its manifest.
#[doc(hidden)]
#[macro_export]
macro_rules! __identity {
    () => {
        $crate::app::Identity {
            name: env!("CARGO_PKG_NAME"),
            version: env!("CARGO_PKG_VERSION"),
            description: env!("CARGO_PKG_DESCRIPTION"),
        }
    };
}
