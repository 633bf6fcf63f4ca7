//! Between the trace context of calls and OpenTelemetry's.

use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState},
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::call::{self, TraceContext};

/// The context a span writes to the wire and to log lines, where traces are exported.
///
/// None where nothing records the span. Vendor state is the parent's, passed on unread.
pub(super) fn context_of(span: &Span, parent: Option<&TraceContext>) -> Option<TraceContext> {
    if span.is_disabled() {
        return None;
    }
    let context = span.context();
    let span = context.span();
    let own = span.span_context();
    own.is_valid().then(|| TraceContext {
        trace_id: u128::from_be_bytes(own.trace_id().to_bytes()),
        span_id: u64::from_be_bytes(own.span_id().to_bytes()),
        sampled: own.is_sampled(),
        state: parent.and_then(|parent| parent.state.clone()),
    })
}

/// Names a span that may have begun: its fields are read for a name no more then.
pub(super) fn rename(span: &Span, name: String) {
    if !span.is_disabled() {
        span.context().span().update_name(name);
    }
}

/// Makes `parent` the parent of a span that has not begun; `remote` says it came over the wire.
pub(super) fn adopt(span: &Span, parent: &TraceContext, remote: bool) {
    if span.is_disabled() {
        return;
    }
    let context = span_context(parent, remote);
    // Fails where no OpenTelemetry layer listens; then there is nothing to adopt.
    drop(span.set_parent(Context::new().with_remote_span_context(context)));
}

/// Has a span that has not begun refer to a position in another trace, or another one in its own.
pub(super) fn link(span: &Span, to: &TraceContext) {
    span.add_link(span_context(to, true));
}

fn span_context(position: &TraceContext, remote: bool) -> SpanContext {
    let state = position
        .state
        .as_ref()
        .and_then(|state| state.to_str().ok())
        .and_then(|state| state.parse::<TraceState>().ok())
        .unwrap_or_default();
    let flags = if position.sampled {
        TraceFlags::SAMPLED
    } else {
        TraceFlags::default()
    };
    SpanContext::new(
        TraceId::from_bytes(position.trace_id.to_be_bytes()),
        SpanId::from_bytes(position.span_id.to_be_bytes()),
        flags,
        remote,
        state,
    )
}

/// Makes the call being served the parent of a span that has not begun, where the code runs outside
/// the call's span: work the call started may, and the call is still its cause.
pub(super) fn join_call(span: &Span) {
    if span.is_disabled() || Context::map_current(TraceContextExt::has_active_span) {
        return;
    }
    call::with_current(|current| {
        if let Some(current) = current {
            adopt(span, &current.trace, false);
        }
    });
}
