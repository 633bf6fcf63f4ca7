//! Which headers of a request are metadata of the call that it becomes, and back.

use http::{HeaderMap, HeaderName, header};
use tonic::metadata::MetadataMap;

/// Said to this process, and not to whom it hands the call on. A cookie comes with whatever page a
/// browser shows, so that nobody may act on it.
const OURS: [HeaderName; 19] = [
    header::ACCEPT,
    header::ACCEPT_CHARSET,
    header::ACCEPT_ENCODING,
    header::ACCEPT_LANGUAGE,
    header::CACHE_CONTROL,
    header::CONNECTION,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::EXPECT,
    header::HOST,
    header::ORIGIN,
    header::PRAGMA,
    header::REFERER,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// As [`OURS`], by how their names begin.
const PREFIXES: [&str; 4] = ["connect-", "grpc-", "sec-", "proxy-"];

fn is_metadata(name: &HeaderName) -> bool {
    let others = ["keep-alive", "x-grpc-web", "x-user-agent", "date", "dnt"];
    !OURS.contains(name)
        && !others.contains(&name.as_str())
        && !PREFIXES.iter().any(|it| name.as_str().starts_with(it))
}

/// The metadata in `headers`: all that is not the business of HTTP or of a protocol.
pub(crate) fn metadata(headers: &HeaderMap) -> HeaderMap {
    let kept = headers.iter().filter(|(name, _)| is_metadata(name));
    kept.map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Writes `metadata` into the headers of an answer, their names after `prefix`.
pub(crate) fn answer(metadata: MetadataMap, prefix: &str, headers: &mut HeaderMap) {
    for (name, value) in &metadata.into_headers() {
        if !is_metadata(name) {
            continue;
        }
        let name = HeaderName::try_from(format!("{prefix}{name}"));
        if let Ok(name) = name {
            headers.append(name, value.clone());
        }
    }
}
