//! A method with all that can be prepared before the first call is due.

use std::{cell::Cell, rc::Rc, time::Duration};

use gantry::{contract::Idempotency, deadline};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use prost_reflect::MethodDescriptor;
use tonic::metadata::{KeyAndValueRef, MetadataMap};

use super::{Served, Step};
use crate::{
    call::{self, DEADLINE_UNARY, invoke},
    failure::Failure,
    load::{
        exchange::Exchange,
        requests::{self, Payload, Shape},
        text::{Marked, Text, Values},
        wish::Wish,
    },
};

/// A method, ready to be called.
#[derive(Debug)]
pub(crate) struct Method {
    /// `package.Service/Method`.
    pub(crate) path: String,
    /// Whom it calls, in the order of the plan.
    pub(crate) target: usize,
    pub(crate) deadline: Option<Duration>,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    /// Those with placeholders.
    pub(super) headers_filled: Vec<(HeaderName, Text)>,
    pub(super) payloads: Vec<Payload>,
    pub(super) one_answer: bool,
    pub(super) idempotency: Idempotency,
    pub(super) wish: Option<Rc<Wish>>,
    /// Which payload is next.
    pub(super) next: Cell<usize>,
}

impl Method {
    /// Looks `step` up at who serves it, and prepares its requests. `names` are the values known by
    /// then.
    pub(super) async fn of(
        step: &Step,
        target: usize,
        served: &Served,
        names: &[String],
    ) -> Result<Self, Failure> {
        let fault = |failure: Failure| match &step.place {
            Some(place) => Failure::new(failure.exit(), format!("{place}: {failure}")),
            None => failure,
        };
        let Some((service, name)) = call::split(&step.method, &served.services) else {
            let text = format!("method {}: write it as package.Service/Method", step.method);
            return Err(fault(Failure::usage(text)));
        };
        let method = call::method(&served.reflection, &served.services, service, name).await;
        let method = method.map_err(fault)?;
        let shape = Shape {
            descriptor: method.input(),
            stream: method.is_client_streaming(),
        };
        let empty = if shape.stream { "" } else { "{}" };
        let text = step.request.as_deref().unwrap_or(empty);
        let payloads = requests::read(text, &shape, names);
        let payloads = payloads.map_err(|why| step.origin.failure(&why))?;
        let unary = !method.is_client_streaming() && !method.is_server_streaming();
        let deadline = step.deadline.or(unary.then_some(DEADLINE_UNARY));
        let path = path(&method);
        let (headers, headers_filled) =
            headers(&step.headers, deadline, names).map_err(|why| fault(Failure::usage(why)))?;
        let wish = Wish::of(method.output(), &step.keep, &step.expect);
        let wish = wish.map_err(|why| fault(Failure::usage(why)))?;
        Ok(Self {
            target,
            deadline,
            uri: path.parse().expect("names of a descriptor make a path"),
            path: path.trim_start_matches('/').to_owned(),
            headers,
            headers_filled,
            payloads,
            one_answer: !method.is_server_streaming(),
            idempotency: Idempotency::of(method.method_descriptor_proto().options.as_ref()),
            wish: wish.map(Rc::new),
            next: Cell::new(0),
        })
    }

    /// The headers that are the same for every call.
    pub(crate) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The next call of this method, which is call `number` of the run, with `values` as they are.
    pub(crate) fn exchange(&self, number: u64, values: &Values) -> Result<Exchange, String> {
        let next = self.next.get();
        let payload = &self.payloads[next % self.payloads.len()];
        self.next.set((next + 1) % self.payloads.len());
        let (requests, volume) = match payload {
            Payload::Framed(bytes, volume) => (bytes.clone(), *volume),
            Payload::Filled(template) => template.fill(number, values)?,
        };
        let mut headers = self.headers.clone();
        for (key, text) in &self.headers_filled {
            let value = HeaderValue::try_from(text.fill(number, values));
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
            wish: self.wish.clone(),
        })
    }
}

fn path(method: &MethodDescriptor) -> String {
    format!("/{}/{}", method.parent_service().full_name(), method.name())
}

/// Whether this may be sent as metadata; `names` are the values that it may name.
pub(crate) fn check_header(key: &str, value: &str, names: &[String]) -> Result<(), String> {
    header(
        &mut MetadataMap::new(),
        &mut Vec::new(),
        (key, value),
        names,
    )
}

/// Adds to `fixed`, or to `filled` what has placeholders.
fn header(
    fixed: &mut MetadataMap,
    filled: &mut Vec<(HeaderName, Text)>,
    (key, value): (&str, &str),
    names: &[String],
) -> Result<(), String> {
    let marked = Marked::read(value, names).map_err(|unknown| unknown.why)?;
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
pub(super) fn headers(
    pairs: &[(String, String)],
    deadline: Option<Duration>,
    names: &[String],
) -> Result<(HeaderMap, Vec<(HeaderName, Text)>), String> {
    let mut fixed = MetadataMap::new();
    let mut filled = Vec::new();
    for (key, value) in pairs {
        header(&mut fixed, &mut filled, (key, value), names)
            .map_err(|why| format!("metadata {key}: {why}"))?;
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
