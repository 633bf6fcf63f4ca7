//! Declares settings: what a section is, and the macros that write one.

use std::collections::BTreeMap;

use super::{Check, Reader};

/// Settings that belong together; written with [`section!`](super::section).
pub trait Section: Default + Clone + PartialEq + std::fmt::Debug + Send + Sync + 'static {
    /// Reads the section; keys that no layer gives are as in `default`.
    fn read(reader: &mut Reader<'_>, default: Self) -> Self;

    /// Refuses what no single key can see, such as a least value above a largest one.
    ///
    /// Called once every key of the section is fine by itself.
    fn validate(&self, check: &mut Check<'_, '_>) {
        let _ = check;
    }

    /// What the member `name` of a map has where no layer gives it a key, or why there can be no
    /// member of that name. `before` holds the members whose names come before it.
    ///
    /// # Errors
    ///
    /// With what completes "name: …": what is wrong with it, and what is expected instead.
    fn member(name: &str, before: &BTreeMap<String, Self>) -> Result<Self, String> {
        let _ = (name, before);
        Ok(Self::default())
    }
}

/// No settings.
impl Section for () {
    fn read(_: &mut Reader<'_>, (): Self) -> Self {}
}

/// Two structs read from one root: the platform's sections and a service's own.
///
/// A key that both declare is a mistake in the program, found when it starts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Both<A, B> {
    /// The first.
    pub first: A,
    /// The second.
    pub second: B,
}

impl<A: Section, B: Section> Section for Both<A, B> {
    fn read(reader: &mut Reader<'_>, default: Self) -> Self {
        Self {
            first: A::read(&mut reader.again(), default.first),
            second: B::read(&mut reader.again(), default.second),
        }
    }
}

/// When a change of a key takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Apply {
    /// At once, while the process runs.
    Live,
    /// When the process is started again.
    Restart,
}

impl std::fmt::Display for Apply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Live => "live",
            Self::Restart => "restart",
        })
    }
}

/// A key as it is declared.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name in the section.
    pub name: &'static str,
    /// Its documentation, line by line.
    pub doc: &'static [&'static str],
    /// When a change of it takes effect.
    pub apply: Apply,
}

/// Declares a section: a struct whose fields are keys.
///
/// Each field has a doc comment (shown to whoever runs the service), a type, a default, and says
/// whether a change is taken `live` or at the next `restart`:
///
/// ```
/// use std::time::Duration;
/// use gantry::config;
///
/// config::section! {
///     /// How often and how patiently a failed call is tried again.
///     pub struct Retry {
///         /// Attempts in total, the first included.
///         pub attempts_max: u8 = 3, in 1..=5, live;
///         /// Delay before the second attempt.
///         pub backoff_min: Duration = Duration::from_millis(50), live;
///         /// Longest delay between attempts.
///         pub backoff_max: Duration = Duration::from_secs(2), live;
///     }
///     validate = Retry::check;
/// }
///
/// impl Retry {
///     fn check(&self, check: &mut config::Check<'_, '_>) {
///         if self.backoff_max < self.backoff_min {
///             check.refuse("backoff_max", "expected no less than backoff_min");
///         }
///     }
/// }
///
/// config::section! {
///     /// One peer.
///     pub struct Peer {
///         /// Where it is.
///         pub target: Option<String> = None, restart;
///         /// A section within a section has no mark: its keys have theirs.
///         pub retry: section Retry;
///     }
/// }
///
/// config::section! {
///     /// Everything.
///     pub struct Config {
///         /// Peers by name, as in `[peers.catalog]`; `live` says that peers may come and go.
///         pub peers: map of Peer, live;
///         /// There or not there.
///         pub fallback: optional section Peer, restart;
///         /// With defaults other than its own.
///         pub slow: section Retry = Retry { attempts_max: 1, ..Retry::default() };
///     }
/// }
///
/// let sources = config::Sources::new().text("example", "[peers.catalog]\ntarget = 'a:1'");
/// let loaded = config::load::<Config>(sources)?;
/// assert_eq!(Some("a:1"), loaded.config().peers["catalog"].target.as_deref());
/// # Ok::<(), config::Faults>(())
/// ```
///
/// The struct is `Clone`, `Debug`, `PartialEq`, has `Default` with the declared defaults, and is a
/// [`Section`](crate::config::Section). `validate` is left out where no rule spans keys, and `member`
/// where the members of a map of it know nothing of each other, see
/// [`Section::member`](crate::config::Section::member).
#[doc(hidden)]
#[macro_export]
macro_rules! __config_section {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident { $($fields:tt)* }
        $(validate = $validate:path;)?
        $(member = $member:path;)?
    ) => {
        $crate::__config_section! {
            @field
            { [$(#[$meta])*] [$vis] $name [$($validate)?] [$($member)?] }
            []
            $($fields)*
        }
    };

    // Each field in turn becomes `{ docs visibility name [type] [default] (how to read it) }`.
    (@field $head:tt [$($done:tt)*]
        $(#[doc = $doc:literal])* $vis:vis $field:ident : section $type:ty ; $($rest:tt)*
    ) => {
        $crate::__config_section! { @field $head [$($done)* {
            [$($doc)*] [$vis] $field [$type] [<$type as ::core::default::Default>::default()]
            (section)
        }] $($rest)* }
    };
    (@field $head:tt [$($done:tt)*]
        $(#[doc = $doc:literal])* $vis:vis $field:ident : section $type:ty = $default:expr ;
        $($rest:tt)*
    ) => {
        $crate::__config_section! { @field $head [$($done)* {
            [$($doc)*] [$vis] $field [$type] [$default] (section)
        }] $($rest)* }
    };
    (@field $head:tt [$($done:tt)*]
        $(#[doc = $doc:literal])* $vis:vis $field:ident : optional section $type:ty ,
        $apply:ident ; $($rest:tt)*
    ) => {
        $crate::__config_section! { @field $head [$($done)* {
            [$($doc)*] [$vis] $field [::core::option::Option<$type>]
            [::core::option::Option::None] (optional $apply)
        }] $($rest)* }
    };
    (@field $head:tt [$($done:tt)*]
        $(#[doc = $doc:literal])* $vis:vis $field:ident : map of $type:ty , $apply:ident ;
        $($rest:tt)*
    ) => {
        $crate::__config_section! { @field $head [$($done)* {
            [$($doc)*] [$vis] $field
            [::std::collections::BTreeMap<::std::string::String, $type>]
            [::std::collections::BTreeMap::new()] (map $apply)
        }] $($rest)* }
    };
    (@field $head:tt [$($done:tt)*]
        $(#[doc = $doc:literal])* $vis:vis $field:ident : $type:ty = $default:expr ,
        in $range:expr , $apply:ident ; $($rest:tt)*
    ) => {
        $crate::__config_section! { @field $head [$($done)* {
            [$($doc)*] [$vis] $field [$type] [$default] (within [$range] $apply)
        }] $($rest)* }
    };
    (@field $head:tt [$($done:tt)*]
        $(#[doc = $doc:literal])* $vis:vis $field:ident : $type:ty = $default:expr ,
        $apply:ident ; $($rest:tt)*
    ) => {
        $crate::__config_section! { @field $head [$($done)* {
            [$($doc)*] [$vis] $field [$type] [$default] (key $apply)
        }] $($rest)* }
    };

    // All fields are known: write the struct.
    (@field {
        [$(#[$meta:meta])*] [$vis:vis] $name:ident [$($validate:path)?] [$($member:path)?]
    } [$({
        [$($doc:literal)*] [$field_vis:vis] $field:ident [$type:ty] [$default:expr] $how:tt
    })*]) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        $vis struct $name {
            $($(#[doc = $doc])* $field_vis $field: $type,)*
        }

        impl ::core::default::Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }

        impl $crate::config::Section for $name {
            fn read(reader: &mut $crate::config::Reader<'_>, default: Self) -> Self {
                let Self { $($field,)* } = default;
                let section = Self {
                    $($field: $crate::__config_section!(
                        @read reader $field [$($doc)*] $how
                    ),)*
                };
                reader.check(&section);
                section
            }

            $(fn validate(&self, check: &mut $crate::config::Check<'_, '_>) {
                $validate(self, check);
            })?

            $(fn member(
                name: &str,
                before: &::std::collections::BTreeMap<::std::string::String, Self>,
            ) -> ::core::result::Result<Self, ::std::string::String> {
                $member(name, before)
            })?
        }
    };

    (@read $reader:ident $field:ident [$($doc:literal)*] (section)) => {
        $reader.section(::core::stringify!($field), $field)
    };
    (@read $reader:ident $field:ident [$($doc:literal)*] (optional $apply:ident)) => {{
        let _: ::core::option::Option<_> = $field;
        $reader.optional($crate::__config_section!(@key $field [$($doc)*] $apply))
    }};
    (@read $reader:ident $field:ident [$($doc:literal)*] (map $apply:ident)) => {{
        let _: ::std::collections::BTreeMap<_, _> = $field;
        $reader.map($crate::__config_section!(@key $field [$($doc)*] $apply))
    }};
    (@read $reader:ident $field:ident [$($doc:literal)*] (key $apply:ident)) => {
        $reader.key($crate::__config_section!(@key $field [$($doc)*] $apply), $field)
    };
    (@read $reader:ident $field:ident [$($doc:literal)*] (within [$range:expr] $apply:ident)) => {
        $reader.within(
            $crate::__config_section!(@key $field [$($doc)*] $apply), $field, $range,
        )
    };

    (@key $field:ident [$($doc:literal)*] $apply:ident) => {
        $crate::config::Key {
            name: ::core::stringify!($field),
            doc: &[$($doc),*],
            apply: $crate::__config_section!(@apply $apply),
        }
    };
    (@apply live) => { $crate::config::Apply::Live };
    (@apply restart) => { $crate::config::Apply::Restart };
}

/// Declares a closed set of words that a key can have.
///
/// ```
/// use gantry::config;
///
/// config::choice! {
///     /// How log lines look.
///     pub enum Format {
///         /// For people.
///         Text = "text",
///         /// For machines.
///         Json = "json",
///     }
/// }
/// assert_eq!("json", Format::Json.as_str());
/// ```
#[doc(hidden)]
#[macro_export]
macro_rules! __config_choice {
    (
        $(#[$meta:meta])*
        $vis:vis enum $name:ident {
            $($(#[$variant_meta:meta])* $variant:ident = $word:literal),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        $vis enum $name {
            $($(#[$variant_meta])* $variant,)+
        }

        impl $name {
            /// The word as it is written.
            #[must_use]
            $vis const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }

        impl ::core::fmt::Display for $name {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl $crate::config::Setting for $name {
            fn kind() -> ::std::borrow::Cow<'static, str> {
                let words: &[&str] = &[$($word),+];
                ::std::borrow::Cow::Owned(::std::format!("one of: {}", words.join(", ")))
            }

            fn expected() -> ::std::borrow::Cow<'static, str> {
                let words: &[&str] = &[$(::core::concat!("\"", $word, "\"")),+];
                ::std::borrow::Cow::Owned(::std::format!("one of {}", words.join(", ")))
            }

            fn read(
                given: $crate::config::Given<'_>,
            ) -> ::core::result::Result<Self, $crate::config::Mismatch> {
                match given.text() {
                    $(::core::option::Option::Some($word) => ::core::result::Result::Ok(Self::$variant),)+
                    _ => ::core::result::Result::Err($crate::config::Mismatch::default()),
                }
            }

            fn show(&self) -> ::core::option::Option<::std::string::String> {
                ::core::option::Option::Some(::std::format!("\"{self}\""))
            }
        }
    };
}
