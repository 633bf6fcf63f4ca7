//! What RabbitMQ and the way there refuse, in the words of brokers.

use std::{fmt, sync::Arc};

use lapin::ErrorKind;

use crate::broker::{BrokerError, PublishError};

/// Ids of errors in AMQP 0-9-1, and in RabbitMQ.
mod id {
    pub(super) const ACCESS_REFUSED: u16 = 403;
    pub(super) const NOT_FOUND: u16 = 404;
    pub(super) const RESOURCE_LOCKED: u16 = 405;
    pub(super) const PRECONDITION_FAILED: u16 = 406;
    pub(super) const NOT_ALLOWED: u16 = 530;
}

/// Why something did not work.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    /// We may not, or are not known.
    Denied(String),
    /// There is no such thing.
    Missing(String),
    /// It is there, and another one than was asked for.
    Other(String),
    /// Nobody answers in time.
    TimedOut,
    /// The connection, or a channel of it, is gone.
    Lost,
    /// The same, and why.
    Broken(Arc<lapin::Error>),
    /// There was never one.
    Unsecured(Arc<str>),
}

impl From<lapin::Error> for Failure {
    fn from(error: lapin::Error) -> Self {
        let ErrorKind::ProtocolError(refused) = error.kind() else {
            return Self::Broken(Arc::new(error));
        };
        let text = refused.get_message().to_string();
        match refused.get_id() {
            id::ACCESS_REFUSED | id::NOT_ALLOWED => Self::Denied(text),
            id::NOT_FOUND => Self::Missing(text),
            id::PRECONDITION_FAILED | id::RESOURCE_LOCKED => Self::Other(text),
            _ => Self::Broken(Arc::new(error)),
        }
    }
}

/// What was asked for; none where there is no such thing.
pub(super) fn there<T>(asked: lapin::Result<T>) -> Result<Option<T>, Failure> {
    match asked.map_err(Failure::from) {
        Ok(found) => Ok(Some(found)),
        Err(Failure::Missing(_)) => Ok(None),
        Err(failure) => Err(failure),
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::from(lapin::Error::from(error))
    }
}

impl Failure {
    /// As the error of a broker, about `what`.
    pub(super) fn about(self, what: &str) -> BrokerError {
        match self {
            Self::Denied(text) => BrokerError::Denied(text),
            Self::Missing(_) => BrokerError::Missing(what.to_owned()),
            Self::Other(text) => BrokerError::OtherShape {
                what: what.to_owned(),
                difference: format!(
                    "{text}; remove the group with gantry events remove, once nothing of it is wanted any more, or take another name"
                ),
            },
            Self::TimedOut => BrokerError::TimedOut,
            Self::Lost | Self::Broken(_) | Self::Unsecured(_) => {
                BrokerError::Disconnected(Box::new(self))
            }
        }
    }
}

impl Failure {
    /// The settings to look at where this is why there is no connection.
    pub(super) fn settings(&self) -> &'static str {
        match self {
            Self::Denied(text) if text.contains("vhost") => {
                "the virtual host at the end of broker.url"
            }
            Self::Denied(_) => "broker.user and broker.password",
            Self::Unsecured(_) => "broker.tls",
            _ => "broker.url",
        }
    }
}

impl From<Failure> for PublishError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Denied(why) => Self::Denied(why),
            failure => Self::Disconnected(Box::new(failure)),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(text) => write!(f, "the broker refuses us: {text}"),
            Self::Missing(text) | Self::Other(text) => f.write_str(text),
            Self::TimedOut => f.write_str("the broker did not answer in time"),
            Self::Lost => f.write_str("the connection is gone"),
            Self::Broken(error) => write!(f, "{error}"),
            Self::Unsecured(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Failure {}
