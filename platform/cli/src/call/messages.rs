//! Requests from JSON: an argument, a file, or standard input as it comes.

use std::{fs, path::Path};

use prost_reflect::{DynamicMessage, MessageDescriptor};
use serde::de::DeserializeSeed as _;
use serde_json::Value;
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    sync::mpsc,
};

use super::MESSAGE_MAX;
use crate::{args::file_of, failure::Failure};

/// Where the requests of a call come from.
#[derive(Debug)]
pub(crate) enum Source {
    /// All are known before the call.
    Given(Vec<DynamicMessage>),
    /// One per line of standard input, for a method that takes a stream.
    StandardInput,
}

impl Source {
    /// Reads `argument` for a method that takes `descriptor`, as a stream or not.
    pub(crate) async fn read(
        argument: Option<&str>,
        descriptor: &MessageDescriptor,
        stream: bool,
    ) -> Result<Self, Failure> {
        let text = match argument {
            None if stream => return Ok(Self::Given(Vec::new())),
            None => "{}".to_owned(),
            Some("-") if stream => return Ok(Self::StandardInput),
            Some("-") => {
                let mut text = String::new();
                let max = u64::try_from(MESSAGE_MAX).unwrap_or(u64::MAX);
                let mut input = tokio::io::stdin().take(max);
                let read = input.read_to_string(&mut text).await;
                read.map_err(|error| Failure::failed(format!("standard input: {error}")))?;
                text
            }
            Some(argument) => match file_of(argument) {
                Some(path) => read_file(&path)?,
                None => argument.to_owned(),
            },
        };
        let values = values(&text).map_err(|error| Failure::usage(format!("request: {error}")))?;
        let values = match &values[..] {
            [Value::Array(list)] if stream => list.clone(),
            _ => values,
        };
        if !stream && values.len() != 1 {
            let count = values.len();
            let text = format!("request: {count} values, and the method takes one");
            return Err(Failure::usage(text));
        }
        from_values(&values, descriptor).map(Self::Given)
    }
}

/// Reads the requests of a seed: one value, or an array of them.
pub(crate) fn of_file(
    path: &Path,
    descriptor: &MessageDescriptor,
) -> Result<Vec<DynamicMessage>, Failure> {
    let fault = |why: String| Failure::usage(format!("{}: {why}", path.display()));
    let values = values(&read_file(path)?).map_err(|error| fault(error.to_string()))?;
    let values = match &values[..] {
        [Value::Array(list)] => list.clone(),
        _ => values,
    };
    from_values(&values, descriptor).map_err(|error| fault(error.to_string()))
}

fn read_file(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("read {}: {error}", path.display())))
}

/// JSON values one after another, whatever space is between them.
fn values(text: &str) -> serde_json::Result<Vec<Value>> {
    serde_json::Deserializer::from_str(text)
        .into_iter()
        .collect()
}

fn from_values(
    values: &[Value],
    descriptor: &MessageDescriptor,
) -> Result<Vec<DynamicMessage>, Failure> {
    let message = |(number, value): (usize, &Value)| {
        let read = descriptor.clone().deserialize(value);
        read.map_err(|error| {
            let place = match values.len() {
                1 => String::new(),
                _ => format!(" {}", number + 1),
            };
            Failure::usage(format!("{}{place}: {error}", descriptor.full_name()))
        })
    };
    values.iter().enumerate().map(message).collect()
}

/// Sends every line of `input` as a message, then returns; the channel ends with its sender.
///
/// # Errors
///
/// At the first line that is no such message. The caller then has to cut the call rather than
/// let it end: the server must not take half of what was meant for all.
pub(crate) async fn send_lines(
    input: impl AsyncBufRead + Unpin,
    descriptor: &MessageDescriptor,
    sender: &mpsc::Sender<DynamicMessage>,
) -> Result<(), Failure> {
    let mut lines = input.lines();
    let mut number = 0_u64;
    loop {
        number += 1;
        let line = lines.next_line().await;
        let line = line.map_err(|error| Failure::failed(format!("standard input: {error}")))?;
        let Some(line) = line else {
            return Ok(());
        };
        if line.trim().is_empty() {
            continue;
        }
        let mut json = serde_json::Deserializer::from_str(&line);
        let message = descriptor.clone().deserialize(&mut json);
        let message = message.and_then(|message| json.end().map(|()| message));
        let message = message
            .map_err(|error| Failure::usage(format!("standard input, line {number}: {error}")))?;
        if sender.send(message).await.is_err() {
            // The call is over; what is left of the input is nobody's.
            return Ok(());
        }
    }
}

/// Standard input, by lines.
pub(crate) fn standard_input() -> impl AsyncBufRead + Unpin {
    BufReader::new(tokio::io::stdin())
}
