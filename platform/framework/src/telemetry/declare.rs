//! The macros by which metrics, labels and events are declared: once, typed, with a description.

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
                values.push(::core::convert::From::from(self.as_str()));
            }

            fn all() -> ::std::vec::Vec<Self> {
                Self::ALL.to_vec()
            }
        }

        impl $crate::telemetry::event::Field for $name {
            type Value<'a> = &'static str;

            fn value(&self) -> &'static str {
                self.as_str()
            }
        }
    };
}

/// Declares metrics: a struct with one handle per metric.
///
/// Each metric has a doc comment, which is its description, a kind, its full name, and labels by
/// [`label!`](crate::telemetry::label) types. A histogram has a unit: `seconds`, `bytes` or
/// `count`. A name that misleads about kind or unit does not compile.
///
/// ```
/// use std::time::Duration;
/// use gantry::telemetry::{label, metrics};
///
/// label! {
///     /// Why a login failed.
///     pub enum Failure {
///         /// There is no such account.
///         UnknownAccount = "unknown_account",
///         /// The password is another.
///         WrongPassword = "wrong_password",
///     }
/// }
///
/// metrics! {
///     /// How logins go.
///     pub struct AuthMetrics {
///         /// Logins asked for.
///         requests: counter "auth_requests_total";
///         /// Logins refused.
///         failures: counter "auth_failure_total" { reason: Failure };
///         /// How long a login takes.
///         duration: histogram "auth_duration_seconds" seconds;
///         /// Hashes being computed now.
///         hashing: gauge "auth_hashes_in_flight";
///     }
/// }
///
/// let metrics = AuthMetrics::register();
/// metrics.requests.increment();
/// let hashing = metrics.hashing.hold();
/// metrics.failures.with(Failure::WrongPassword).increment();
/// metrics.duration.record_duration(Duration::from_millis(60));
/// # drop(hashing);
/// ```
///
/// Register once, when the service is made: that looks up the handles.
#[doc(hidden)]
#[macro_export]
macro_rules! __telemetry_metrics {
    (
        $(#[$meta:meta])*
        $vis:vis struct $name:ident {$(
            $(#[doc = $doc:literal])+
            $field:ident : $kind:ident $metric:literal $($unit:ident)?
            $({ $($label:ident : $type:ty),+ $(,)? })? ;
        )+}
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone)]
        $vis struct $name {$(
            $(#[doc = $doc])+
            $vis $field: $crate::__telemetry_metrics!(@type $kind $([$($type),+])?),
        )+}

        impl $name {
            /// Every metric of this declaration.
            $vis const ALL: &'static [$crate::names::Metric] = &[$(
                $crate::names::Metric::new(
                    $crate::__telemetry_metrics!(@kind $kind),
                    $metric,
                    $crate::__telemetry_metrics!(@unit $kind $($unit)?),
                    ::core::concat!($($doc),+).trim_ascii(),
                )
                $(.by(&[$(::core::stringify!($label)),+]))?
            ),+];

            /// Looks the handles up and makes every series appear, at zero.
            #[must_use]
            $vis fn register() -> Self {
                let mut declared = Self::ALL.iter();
                let mut next = move || {
                    declared.next().expect("one declaration per field")
                };
                Self {$(
                    $field: $crate::__telemetry_metrics!(@register (next()) $([$($type),+])?),
                )+}
            }
        }
    };

    (@type $kind:ident) => { $crate::__telemetry_metrics!(@handle $kind) };
    (@type $kind:ident [$type:ty]) => {
        $crate::telemetry::metric::Family<$crate::__telemetry_metrics!(@handle $kind), $type>
    };
    (@type $kind:ident [$first:ty, $second:ty]) => {
        $crate::__telemetry_metrics!(@type $kind [($first, $second)])
    };

    (@handle counter) => { $crate::telemetry::metric::Counter };
    (@handle gauge) => { $crate::telemetry::metric::Gauge };
    (@handle histogram) => { $crate::telemetry::metric::Histogram };

    (@kind counter) => { $crate::names::Kind::Counter };
    (@kind gauge) => { $crate::names::Kind::Gauge };
    (@kind histogram) => { $crate::names::Kind::Histogram };

    (@unit $kind:ident seconds) => { $crate::telemetry::metric::Unit::Seconds };
    (@unit $kind:ident bytes) => { $crate::telemetry::metric::Unit::Bytes };
    (@unit $kind:ident count) => { $crate::telemetry::metric::Unit::Count };
    (@unit counter) => { $crate::telemetry::metric::Unit::Count };
    (@unit gauge) => { $crate::telemetry::metric::Unit::Count };
    (@unit histogram) => {
        ::core::compile_error!("a histogram has a unit: seconds, bytes or count")
    };

    (@register $metric:tt) => { $crate::telemetry::metric::series($metric, &[]) };
    (@register $metric:tt [$($type:ty),+]) => {
        $crate::telemetry::metric::Family::register($metric, &[]).visible()
    };
}

/// Declares an event: a log line that is also an event of the span it happens in.
///
/// Each event has a level, a message that never changes, and typed fields.
///
/// ```
/// use gantry::telemetry::{event, event::Event as _};
///
/// event! {
///     /// A reservation was given back because nobody confirmed it.
///     pub struct ReservationExpired: INFO "reservation expired" {
///         /// Items given back.
///         items: u64,
///         /// Whose they were.
///         order_id: String,
///     }
/// }
///
/// ReservationExpired { items: 3, order_id: "o-17".to_owned() }.emit();
/// ```
#[doc(hidden)]
#[macro_export]
macro_rules! __telemetry_event {
    (
        $(#[doc = $doc:literal])+
        $vis:vis struct $name:ident : $level:ident $message:literal {$(
            $(#[doc = $field_doc:literal])+
            $field:ident : $type:ty
        ),* $(,)?}
    ) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone)]
        $vis struct $name {$(
            $(#[doc = $field_doc])+
            $vis $field: $type,
        )*}

        impl $crate::telemetry::event::Event for $name {
            const MESSAGE: &'static str = $message;
            const DESCRIPTION: &'static str = ::core::concat!($($doc),+).trim_ascii();
            const FIELDS: &'static [(&'static str, &'static str)] = &[$(
                (
                    ::core::stringify!($field),
                    ::core::concat!($($field_doc),+).trim_ascii(),
                ),
            )*];

            fn emit(&self) {
                $crate::telemetry::event::tracing::event!(
                    $crate::telemetry::event::tracing::Level::$level,
                    $($field = $crate::telemetry::event::Field::value(&self.$field),)*
                    $message
                );
            }
        }
    };
}
