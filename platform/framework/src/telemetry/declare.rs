//! The macros by which a service declares its own metrics, labels and events.

/// Declares a label: an enum whose values, as text, are all a metric can have.
///
/// ```
/// gantry::telemetry::label! {
///     /// Why a login failed.
///     pub enum Failure {
///         /// There is no such account.
///         UnknownAccount = "unknown_account",
///         /// The password is another.
///         WrongPassword = "wrong_password",
///     }
/// }
///
/// assert_eq!("wrong_password", Failure::WrongPassword.as_str());
/// ```
#[doc(hidden)]
#[macro_export]
macro_rules! __telemetry_label {
    (
        $(#[$meta:meta])*
        $vis:vis enum $name:ident {
            $($(#[$value_meta:meta])* $value:ident = $text:literal),+ $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        $vis enum $name {
            $($(#[$value_meta])* $value,)+
        }

        impl $name {
            /// Every value.
            $vis const ALL: &'static [Self] = &[$(Self::$value),+];

            /// The value as text.
            #[must_use]
            $vis const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $text,)+
                }
            }
        }

        impl $crate::telemetry::metric::Label for $name {
            const COUNT: usize = Self::ALL.len();

            fn index(self) -> usize {
                self as usize
            }

            fn write(self, values: &mut ::std::vec::Vec<$crate::telemetry::metric::Value>) {
                values.push(self.as_str().into());
            }
        }
    };
}
