//! W3C trace context: which trace a call belongs to (<https://www.w3.org/TR/trace-context/>).

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header that carries trace and parent span.
pub static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// The header that carries what vendors add; passed on unread.
pub static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Longest `tracestate` passed on; a longer one is dropped, as the specification allows.
const TRACESTATE_MAX: usize = 512;

/// A position in a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace, never zero.
    pub trace_id: u128,
    /// The span, never zero.
    pub span_id: u64,
    /// Whether spans of this trace are recorded.
    pub sampled: bool,
    /// What vendors added, passed on unread.
    pub state: Option<HeaderValue>,
}

impl TraceContext {
    /// Begins a trace of its own.
    #[must_use]
    pub fn root(sampled: bool) -> Self {
        Self {
            trace_id: u128::from(new_id()) << 64 | u128::from(new_id()),
            span_id: new_id(),
            sampled,
            state: None,
        }
    }

    /// A new span in the same trace.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            span_id: new_id(),
            ..self.clone()
        }
    }

    /// Reads the context of a request; none if it is absent or malformed, as the specification
    /// asks: a broken `traceparent` begins a new trace.
    #[must_use]
    pub fn extract(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(&TRACEPARENT).iter();
        let (value, None) = (values.next()?, values.next()) else {
            return None;
        };
        let mut context = Self::parse(value.as_bytes())?;
        context.state = headers
            .get(&TRACESTATE)
            .filter(|state| state.len() <= TRACESTATE_MAX)
            .cloned();
        Some(context)
    }

    /// Writes the context into the headers of a request.
    #[expect(
        clippy::missing_panics_doc,
        reason = "hex and dashes are a header value"
    )]
    pub fn inject(&self, headers: &mut HeaderMap) {
        let mut text = [0_u8; 55];
        text[..3].copy_from_slice(b"00-");
        write_hex(&mut text[3..35], &self.trace_id.to_be_bytes());
        text[35] = b'-';
        write_hex(&mut text[36..52], &self.span_id.to_be_bytes());
        text[52..].copy_from_slice(if self.sampled { b"-01" } else { b"-00" });
        let mut value = HeaderValue::from_bytes(&text).expect("hex and dashes are a header value");
        // Never the same twice: in HPACK's table it would only push out what is.
        value.set_sensitive(true);
        headers.insert(&TRACEPARENT, value);
        if let Some(state) = &self.state {
            headers.insert(&TRACESTATE, state.clone());
        }
    }

    /// Reads a position from its two texts, as they are kept outside of headers; none if it is
    /// malformed.
    #[must_use]
    pub fn read(parent: &str, state: Option<&str>) -> Option<Self> {
        let mut context = Self::parse(parent.as_bytes())?;
        context.state = state
            .filter(|state| state.len() <= TRACESTATE_MAX)
            .and_then(|state| state.parse().ok());
        Some(context)
    }

    fn parse(text: &[u8]) -> Option<Self> {
        // A later version may append fields after another dash; version 00 may not.
        let known =
            text.len() == 55 || (text.len() > 55 && text[55] == b'-' && &text[..2] != b"00");
        if !known || text[2] != b'-' || text[35] != b'-' || text[52] != b'-' {
            return None;
        }
        let version = read_hex(&text[..2])?;
        let high = read_hex(&text[3..19])?;
        let low = read_hex(&text[19..35])?;
        let trace_id = u128::from(high) << 64 | u128::from(low);
        let span_id = read_hex(&text[36..52])?;
        let flags = read_hex(&text[53..55])?;
        if version == 0xff || trace_id == 0 || span_id == 0 {
            return None;
        }
        Some(Self {
            trace_id,
            span_id,
            sampled: flags & 1 == 1,
            state: None,
        })
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}-{:016x}", self.trace_id, self.span_id)
    }
}

/// A random id; zero would be none.
fn new_id() -> u64 {
    fastrand::u64(..).max(1)
}

/// The value of each byte as a lower-case hex digit, as the specification demands; 16 where it is
/// none. Every call reads and writes fifty digits, so they are looked up.
const VALUES: [u8; 256] = {
    let mut values = [16; 256];
    let mut digit = 0;
    while digit < 16 {
        values[DIGITS[digit as usize] as usize] = digit;
        digit += 1;
    }
    values
};

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Reads at most sixteen digits.
fn read_hex(text: &[u8]) -> Option<u64> {
    let mut number = 0;
    let mut seen = 0;
    for byte in text {
        let value = VALUES[usize::from(*byte)];
        seen |= value;
        number = number << 4 | u64::from(value & 0xf);
    }
    (seen < 16).then_some(number)
}

fn write_hex(text: &mut [u8], bytes: &[u8]) {
    for (places, byte) in text.chunks_exact_mut(2).zip(bytes) {
        places[0] = DIGITS[usize::from(byte >> 4)];
        places[1] = DIGITS[usize::from(byte & 0xf)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parent(value: &'static str) -> Option<TraceContext> {
        let mut headers = HeaderMap::new();
        headers.insert(&TRACEPARENT, HeaderValue::from_static(value));
        TraceContext::extract(&headers)
    }

    /// Goal: what is written is read back.
    /// Method: a root context through headers, with vendor state.
    #[test]
    fn a_context_survives_the_wire() {
        let mut sent = TraceContext::root(true);
        sent.state = Some(HeaderValue::from_static("vendor=1"));
        let mut headers = HeaderMap::new();
        sent.inject(&mut headers);
        assert_eq!(Some(sent), TraceContext::extract(&headers));
    }

    /// Goal: the specification's example is read, and what it calls invalid is not.
    /// Method: its vectors.
    #[test]
    fn malformed_parents_begin_a_new_trace() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let context = parent(good).unwrap();
        assert_eq!(0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c, context.trace_id);
        assert!(context.sampled);
        assert!(parent("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more").is_some());
        for bad in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        ] {
            assert_eq!(None, parent(bad), "{bad}");
        }
    }
}
