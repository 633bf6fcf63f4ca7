//! What went wrong with a call, in words: code, message, and the `google.rpc` details.

use gantry::{
    BoxError,
    status::{chain, code_name},
};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::failure::Failure;

/// A channel that cannot carry the call.
pub(crate) fn unreachable(error: impl Into<BoxError>) -> Status {
    Status::unavailable(chain(&*error.into()))
}

/// A failed call for people.
pub(crate) fn failure(status: &Status) -> Failure {
    let mut text = format!("{}: {}", code_name(status.code()), message(status));
    for detail in details(status) {
        text.push_str("\n  ");
        text.push_str(&detail_line(&detail));
    }
    Failure::failed(text)
}

/// A failed call for programs.
pub(crate) fn to_json(status: &Status) -> Value {
    json!({
        "code": i32::from(status.code()),
        "status": code_name(status.code()),
        "message": message(status),
        "details": details(status),
    })
}

/// The message and, where the failure came from this side of the network, its causes.
fn message(status: &Status) -> String {
    match std::error::Error::source(status) {
        Some(source) if !status.message().contains(&source.to_string()) => {
            format!("{}: {}", status.message(), chain(source))
        }
        _ if status.message().is_empty() => "no message".to_owned(),
        _ => status.message().to_owned(),
    }
}

/// The details as `ProtoJSON`; a type not known here shows its name and size.
fn details(status: &Status) -> Vec<Value> {
    if status.details().is_empty() {
        return Vec::new();
    }
    let Ok(rpc_status) = tonic_types::Status::decode(status.details()) else {
        return vec![json!({ "unreadable": status.details().len() })];
    };
    let pool = DescriptorPool::decode(tonic_types::pb::FILE_DESCRIPTOR_SET)
        .expect("the descriptors of google.rpc are valid");
    let detail = |any: prost_types::Any| {
        decode(&pool, &any)
            .unwrap_or_else(|| json!({ "@type": any.type_url, "bytes": any.value.len() }))
    };
    rpc_status.details.into_iter().map(detail).collect()
}

fn decode(pool: &DescriptorPool, any: &prost_types::Any) -> Option<Value> {
    let name = any.type_url.rsplit('/').next()?;
    let descriptor = pool.get_message_by_name(name)?;
    let message = DynamicMessage::decode(descriptor, &*any.value).ok()?;
    let Value::Object(fields) = serde_json::to_value(&message).ok()? else {
        return None;
    };
    let mut object = serde_json::Map::new();
    object.insert("@type".to_owned(), Value::String(any.type_url.clone()));
    object.extend(fields);
    Some(Value::Object(object))
}

/// `BadRequest {"fieldViolations":[…]}`
fn detail_line(detail: &Value) -> String {
    let mut fields = detail.clone();
    let url = fields
        .as_object_mut()
        .and_then(|object| object.remove("@type"));
    let url = url.as_ref().and_then(Value::as_str).unwrap_or_default();
    let name = url.rsplit(['/', '.']).next().unwrap_or_default();
    format!("{name} {fields}")
}

/// What a call that took too long comes to.
pub(crate) fn too_late() -> Status {
    Status::new(
        Code::DeadlineExceeded,
        "the deadline of the call has passed",
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic_types::{ErrorDetails, StatusExt as _};

    use super::*;

    /// Goal: people and programs see the code's name and every detail decoded.
    /// Method: a refusal with three kinds of details.
    #[test]
    fn details_are_decoded() {
        let mut details = ErrorDetails::with_retry_info(Some(Duration::from_millis(1_500)));
        details.set_error_info("CROWDED", "gantry", []);
        details.add_bad_request_violation("lines[0].quantity", "must be above 0");
        let status = Status::with_error_details(Code::InvalidArgument, "no", details);

        let text = failure(&status).to_string();
        assert!(text.starts_with("INVALID_ARGUMENT: no\n"), "{text}");
        for part in [
            r#"RetryInfo {"retryDelay":"1.500s"}"#,
            r#"ErrorInfo {"domain":"gantry","reason":"CROWDED"}"#,
            r#""field":"lines[0].quantity""#,
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let json = to_json(&status);
        assert_eq!(
            (3, "INVALID_ARGUMENT"),
            (
                json["code"].as_i64().unwrap(),
                json["status"].as_str().unwrap()
            )
        );
        assert_eq!(3, json["details"].as_array().unwrap().len());
    }

    /// Goal: what cannot be decoded is named, never dropped.
    /// Method: a detail of an unknown type, and bytes that are no status.
    #[test]
    fn unknown_details_are_named() {
        let unknown = prost_types::Any {
            type_url: "type.googleapis.com/acme.Odd".to_owned(),
            value: vec![1, 2, 3],
        };
        let rpc_status = tonic_types::Status {
            code: 5,
            message: "no".to_owned(),
            details: vec![unknown],
        };
        let status = Status::with_details(Code::NotFound, "no", rpc_status.encode_to_vec().into());
        assert_eq!(
            json!({"@type": "type.googleapis.com/acme.Odd", "bytes": 3}),
            to_json(&status)["details"][0]
        );

        let garbage = Status::with_details(Code::NotFound, "no", vec![0xff; 9].into());
        assert_eq!(json!({"unreadable": 9}), to_json(&garbage)["details"][0]);
    }
}
