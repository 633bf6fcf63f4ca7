//! One call of any kind.

use std::{future, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use prost_reflect::{DynamicMessage, MethodDescriptor};
use tokio::{
    signal,
    sync::mpsc,
    time::{self, Instant},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Status,
    client::Grpc,
    metadata::{
        AsciiMetadataKey, AsciiMetadataValue, BinaryMetadataKey, BinaryMetadataValue, MetadataMap,
    },
};

use super::{
    MESSAGE_MAX,
    codec::DynamicCodec,
    errors,
    messages::{self, Source},
    target::Channel,
};
use crate::failure::{Exit, Failure};

/// Requests read ahead of what the server takes.
const REQUESTS: usize = 16;

/// A call to be made.
#[derive(Debug)]
pub(crate) struct Invocation {
    pub(crate) channel: Channel,
    pub(crate) method: MethodDescriptor,
    pub(crate) metadata: MetadataMap,
    /// From now to the end of the answer.
    pub(crate) deadline: Option<Duration>,
}

/// Why a call did not go well.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The server, or the network, said so.
    Status(Status),
    /// What was to be sent is wrong; the call was cut.
    Requests(Failure),
}

impl Invocation {
    /// Sends the requests and hands each answer to `show` as it comes. Ctrl-C cuts the call.
    ///
    /// All four kinds of calls are the same on the wire, so one path serves them.
    pub(crate) async fn run(
        &self,
        source: Source,
        show: impl FnMut(DynamicMessage),
    ) -> Result<Exit, Ended> {
        let (sender, requests) = mpsc::channel(REQUESTS);
        // Whichever arm wins, the others are dropped, and with `answers` the call itself.
        tokio::select! {
            failure = self.feed(source, sender) => Err(Ended::Requests(failure)),
            answers = self.answers(requests, show) => answers.map_err(Ended::Status),
            _ = signal::ctrl_c() => Ok(Exit::Interrupted),
        }
    }

    /// Sends all requests, and ends their stream. Returns only at one that cannot be sent.
    async fn feed(&self, source: Source, sender: mpsc::Sender<DynamicMessage>) -> Failure {
        match source {
            Source::Given(requests) => {
                for request in requests {
                    // Nobody takes it: the call is over.
                    drop(sender.send(request).await);
                }
            }
            Source::StandardInput => {
                let input = messages::standard_input();
                let sent = messages::send_lines(input, &self.method.input(), &sender).await;
                if let Err(failure) = sent {
                    return failure;
                }
            }
        }
        drop(sender);
        future::pending().await
    }

    async fn answers(
        &self,
        requests: mpsc::Receiver<DynamicMessage>,
        mut show: impl FnMut(DynamicMessage),
    ) -> Result<Exit, Status> {
        let exchange = async {
            let mut request = Request::new(ReceiverStream::new(requests));
            *request.metadata_mut() = self.metadata.clone();
            if let Some(deadline) = self.deadline {
                request.set_timeout(deadline);
            }
            let mut client = Grpc::new(self.channel.clone()).max_decoding_message_size(MESSAGE_MAX);
            client.ready().await.map_err(errors::unreachable)?;
            let service = self.method.parent_service();
            let path = format!("/{}/{}", service.full_name(), self.method.name());
            let path = path.parse().expect("names of a descriptor make a path");
            let codec = DynamicCodec {
                decoded: self.method.output(),
            };
            let mut answers = client.streaming(request, path, codec).await?.into_inner();
            let mut count = 0_usize;
            while let Some(answer) = answers.message().await? {
                show(answer);
                count += 1;
            }
            if count != 1 && !self.method.is_server_streaming() {
                let text = format!("{count} answers to a call that has one");
                return Err(Status::internal(text));
            }
            Ok(Exit::Fine)
        };
        let Some(deadline) = self.deadline else {
            return exchange.await;
        };
        let end = Instant::now() + deadline;
        match time::timeout_at(end, exchange).await {
            // Servers that know the deadline end the call too, some under another name.
            Ok(Err(_)) if Instant::now() >= end => Err(errors::too_late()),
            Ok(answers) => answers,
            Err(_) => Err(errors::too_late()),
        }
    }

    /// Sends `requests` and collects the answers.
    pub(crate) async fn collect(
        &self,
        requests: Vec<DynamicMessage>,
    ) -> Result<Vec<DynamicMessage>, Ended> {
        let mut answers = Vec::new();
        let source = Source::Given(requests);
        self.run(source, |answer| answers.push(answer)).await?;
        Ok(answers)
    }
}

/// Metadata from `key: value` pairs; values of `-bin` keys are base64.
pub(crate) fn metadata(headers: &[String]) -> Result<MetadataMap, Failure> {
    let mut metadata = MetadataMap::new();
    for header in headers {
        let (key, value) = pair(header)?;
        add_header(&mut metadata, key, value)
            .map_err(|why| Failure::usage(format!("-H \"{header}\": {why}")))?;
    }
    Ok(metadata)
}

/// Key and value of a `key: value` pair.
pub(crate) fn pair(header: &str) -> Result<(&str, &str), Failure> {
    let pair = header.split_once(':').ok_or_else(|| {
        let text = format!("-H \"{header}\": write it as key: value");
        Failure::usage(text)
    })?;
    Ok((pair.0.trim(), pair.1.trim()))
}

/// Adds to `metadata`, or says why this cannot be sent.
pub(crate) fn add_header(
    metadata: &mut MetadataMap,
    key: &str,
    value: &str,
) -> Result<(), &'static str> {
    const KEY: &str = "the key has characters no header may have";
    let key = key.to_ascii_lowercase();
    if key.ends_with("-bin") {
        let key = BinaryMetadataKey::from_bytes(key.as_bytes()).map_err(|_| KEY)?;
        let bytes = STANDARD_NO_PAD
            .decode(value.trim_end_matches('='))
            .map_err(|_| "the value of a -bin key is base64")?;
        metadata.append_bin(key, BinaryMetadataValue::from_bytes(&bytes));
    } else {
        let key = AsciiMetadataKey::from_bytes(key.as_bytes()).map_err(|_| KEY)?;
        let value = AsciiMetadataValue::try_from(value)
            .map_err(|_| "the value has characters no header may have")?;
        metadata.append(key, value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: headers are taken as people write them, binary ones as base64, others refused.
    /// Method: three good ones read back, four bad ones.
    #[test]
    fn headers_become_metadata() {
        let good = ["Authorization: Bearer a:b", "x-a:1", "trace-bin: AAE="];
        let metadata = metadata(&good.map(str::to_owned)).unwrap();
        assert_eq!("Bearer a:b", metadata.get("authorization").unwrap());
        assert_eq!("1", metadata.get("x-a").unwrap());
        let bytes = metadata.get_bin("trace-bin").unwrap().to_bytes().unwrap();
        assert_eq!(&[0, 1], &*bytes);

        for bad in ["novalue", "a b: c", "x-bin: %", "x: \u{7}"] {
            assert!(super::metadata(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
