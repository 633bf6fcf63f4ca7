//! What a run calls: methods with their weights, and all that can be prepared before the first
//! call is due.

use std::{future::Future, path::PathBuf, time::Duration};

use gantry::{client::Channel, contract::Idempotency, deadline};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use prost_reflect::MethodDescriptor;
use tonic::metadata::{KeyAndValueRef, MetadataMap};

use super::{
    exchange::{Ended, Exchange},
    pace::Calls,
    requests::{self, Fault, Payload, Shape},
    text::{Marked, Text},
};
use crate::{
    call::{self, DEADLINE_UNARY, invoke, reflection::Reflection},
    failure::Failure,
};

/// How long calls without a deadline may take once no more are sent.
const LINGER: Duration = Duration::from_secs(5);

/// On top of a deadline: the channel keeps it, and says so a moment later.
const LINGER_MORE: Duration = Duration::from_millis(500);

/// A method to be called, as somebody asked for it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Where it is asked for, `file:line`; none on the command line.
    pub(crate) place: Option<String>,
    /// What the report calls it.
    pub(crate) name: String,
    /// `package.Service/Method`.
    pub(crate) method: String,
    /// Its share of the calls, among the weights of all.
    pub(crate) weight: u32,
    /// The requests, as JSON.
    pub(crate) request: Option<String>,
    /// Where the requests are from.
    pub(crate) origin: Origin,
    /// Metadata, checked.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) deadline: Option<Duration>,
}

/// Where a text is from, for what is wrong with it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A file of its own.
    File(PathBuf),
    /// Something that is called so.
    Argument(String),
}

/// All methods of a run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) methods: Vec<Method>,
}

/// A method, ready to be called.
#[derive(Debug)]
pub(crate) struct Method {
    pub(crate) name: String,
    /// `package.Service/Method`.
    pub(crate) path: String,
    pub(crate) weight: u32,
    pub(crate) deadline: Option<Duration>,
    uri: Uri,
    headers: HeaderMap,
    /// Those with placeholders.
    headers_filled: Vec<(HeaderName, Text)>,
    payloads: Vec<Payload>,
    one_answer: bool,
    idempotency: Idempotency,
    /// Which payload is next.
    next: usize,
    /// What the weights have given it and calls have not used yet.
    credit: i64,
}

impl Plan {
    /// Looks `wanted` up at the server, and prepares the requests.
    pub(crate) async fn of(
        wanted: Vec<Wanted>,
        reflection: &Reflection,
        services: &[String],
    ) -> Result<Self, Failure> {
        let mut methods = Vec::new();
        for wanted in wanted {
            methods.push(Method::of(wanted, reflection, services).await?);
        }
        Ok(Self { methods })
    }

    /// How long what is in flight at the end may take.
    pub(crate) fn linger(&self) -> Duration {
        let deadlines = self.methods.iter().map(|method| method.deadline);
        let longest = deadlines.map(|deadline| deadline.unwrap_or(LINGER)).max();
        longest.unwrap_or(LINGER) + LINGER_MORE
    }

    /// The method of the next call: each as often as its weight says, evenly mixed.
    fn choose(&mut self) -> usize {
        let mut chosen = 0;
        let mut total = 0;
        let mut most = i64::MIN;
        for (index, method) in self.methods.iter_mut().enumerate() {
            let weight = i64::from(method.weight);
            total += weight;
            method.credit += weight;
            if method.credit > most {
                (chosen, most) = (index, method.credit);
            }
        }
        if let Some(method) = self.methods.get_mut(chosen) {
            method.credit -= total;
        }
        chosen
    }
}

impl Method {
    async fn of(
        wanted: Wanted,
        reflection: &Reflection,
        services: &[String],
    ) -> Result<Self, Failure> {
        let fault = |failure: Failure| match &wanted.place {
            Some(place) => Failure::new(failure.exit(), format!("{place}: {failure}")),
            None => failure,
        };
        let Some((service, name)) = call::split(&wanted.method, services) else {
            let text = format!(
                "method {}: write it as package.Service/Method",
                wanted.method
            );
            return Err(fault(Failure::usage(text)));
        };
        let method = call::method(reflection, services, service, name).await;
        let method = method.map_err(fault)?;
        let shape = Shape {
            descriptor: method.input(),
            stream: method.is_client_streaming(),
        };
        let empty = if shape.stream { "" } else { "{}" };
        let text = wanted.request.as_deref().unwrap_or(empty);
        let payloads = requests::read(text, &shape).map_err(|why| wanted.origin.failure(&why))?;
        let unary = !method.is_client_streaming() && !method.is_server_streaming();
        let deadline = wanted.deadline.or(unary.then_some(DEADLINE_UNARY));
        let path = path(&method);
        let (headers, headers_filled) = headers(&wanted.headers, deadline)?;
        Ok(Self {
            name: wanted.name,
            weight: wanted.weight,
            deadline,
            uri: path.parse().expect("names of a descriptor make a path"),
            path: path.trim_start_matches('/').to_owned(),
            headers,
            headers_filled,
            payloads,
            one_answer: !method.is_server_streaming(),
            idempotency: Idempotency::of(method.method_descriptor_proto().options.as_ref()),
            next: 0,
            credit: 0,
        })
    }

    /// The next call of this method, which is call `number` of the run.
    fn exchange(&mut self, number: u64) -> Result<Exchange, String> {
        let payload = &self.payloads[self.next % self.payloads.len()];
        self.next = (self.next + 1) % self.payloads.len();
        let (requests, volume) = match payload {
            Payload::Framed(bytes, volume) => (bytes.clone(), *volume),
            Payload::Filled(template) => template.fill(number)?,
        };
        let mut headers = self.headers.clone();
        for (key, text) in &self.headers_filled {
            let value = HeaderValue::try_from(text.fill(number));
            let value = value.map_err(|error| format!("metadata {key}: {error}"))?;
            headers.append(key, value);
        }
        Ok(Exchange {
            uri: self.uri.clone(),
            headers,
            requests,
            volume,
            one_answer: self.one_answer,
            idempotency: self.idempotency,
        })
    }
}

impl Origin {
    fn failure(&self, fault: &Fault) -> Failure {
        let Fault { line, why } = fault;
        Failure::usage(match self {
            Self::File(path) => format!("{}:{line}: {why}", path.display()),
            Self::Argument(name) if *line > 1 => format!("{name}: line {line}: {why}"),
            Self::Argument(name) => format!("{name}: {why}"),
        })
    }
}

fn path(method: &MethodDescriptor) -> String {
    format!("/{}/{}", method.parent_service().full_name(), method.name())
}

/// Whether this may be sent as metadata.
pub(crate) fn check_header(key: &str, value: &str) -> Result<(), String> {
    header(&mut MetadataMap::new(), &mut Vec::new(), key, value)
}

/// Adds to `fixed`, or to `filled` what has placeholders.
fn header(
    fixed: &mut MetadataMap,
    filled: &mut Vec<(HeaderName, Text)>,
    key: &str,
    value: &str,
) -> Result<(), String> {
    let marked = Marked::read(value).map_err(|unknown| unknown.why)?;
    let Some(text) = marked.whole() else {
        return Ok(invoke::add_header(fixed, key, value)?);
    };
    let mut probe = MetadataMap::new();
    invoke::add_header(&mut probe, key, &marked.probe())?;
    if probe
        .iter()
        .any(|pair| matches!(pair, KeyAndValueRef::Binary(..)))
    {
        return Err("the value of a -bin key has no placeholders".to_owned());
    }
    let key = HeaderName::try_from(key).map_err(|error| error.to_string())?;
    filled.push((key, text));
    Ok(())
}

/// The headers of every call, and those to be filled.
fn headers(
    pairs: &[(String, String)],
    deadline: Option<Duration>,
) -> Result<(HeaderMap, Vec<(HeaderName, Text)>), Failure> {
    let mut fixed = MetadataMap::new();
    let mut filled = Vec::new();
    for (key, value) in pairs {
        header(&mut fixed, &mut filled, key, value)
            .map_err(|why| Failure::usage(format!("metadata {key}: {why}")))?;
    }
    let mut headers = fixed.into_headers();
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    let kind = HeaderValue::from_static("application/grpc");
    headers.insert(header::CONTENT_TYPE, kind);
    if let Some(deadline) = deadline {
        headers.insert(&deadline::GRPC_TIMEOUT, deadline::format_timeout(deadline));
    }
    Ok((headers, filled))
}

/// Calls what a plan says, over one channel.
#[derive(Debug)]
pub(crate) struct Caller {
    pub(crate) channel: Channel,
    pub(crate) plan: Plan,
}

impl Calls for Caller {
    fn prepare(&mut self, number: u64) -> (usize, impl Future<Output = Ended> + use<>) {
        let method = self.plan.choose();
        let exchange = self.plan.methods[method].exchange(number);
        let channel = self.channel.clone();
        let call = async move {
            match exchange {
                Ok(exchange) => exchange.run(channel).await,
                Err(why) => Ended::unsent(why),
            }
        };
        (method, call)
    }
}

#[cfg(test)]
mod tests;
