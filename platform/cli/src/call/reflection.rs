//! What a server says that it serves, for whoever types a call.

use gantry::client;
use prost_reflect::DescriptorPool;
use tonic::Code;

use super::{errors, target::Channel};
use crate::failure::Failure;

/// A server that describes itself.
#[derive(Debug)]
pub(crate) struct Reflection(client::Reflection);

impl Reflection {
    /// Finds the version `channel`'s server speaks, and its services' full names.
    pub(crate) async fn of(channel: Channel) -> Result<(Self, Vec<String>), Failure> {
        match client::Reflection::of(channel).await {
            Ok((reflection, services)) => Ok((Self(reflection), services)),
            Err(status) if status.code() == Code::Unimplemented => {
                Err(Failure::failed(status.message()))
            }
            Err(status) => Err(errors::failure(&status)),
        }
    }

    /// Everything `symbol` stands on: its file and all that it imports.
    pub(crate) async fn pool(&self, symbol: &str) -> Result<DescriptorPool, Failure> {
        let files = self.0.files(symbol).await;
        let files = files.map_err(|status| match status.code() {
            Code::NotFound => Failure::usage(format!("the server does not know {symbol}")),
            _ => errors::failure(&status),
        })?;
        DescriptorPool::from_file_descriptor_set(files)
            .map_err(|error| Failure::failed(format!("the description of {symbol}: {error}")))
    }
}
