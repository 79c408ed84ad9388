//! W3C Trace Context at the edges of the server: the caller's span becomes the parent of the request's, and what is current
//! here is what an upstream is told. Owns no exporter (`telemetry`) and no span but the request's.

use http::{HeaderMap, Request};
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::TraceContextExt;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The span of one request (OpenTelemetry's names for HTTP servers). A debug span, so that it costs nothing unless traces are
/// wanted.
pub(super) fn of_request<B>(request: &Request<B>) -> Span {
    let span = tracing::debug_span!(
        "request",
        otel.kind = "server",
        http.request.method = %request.method(),
        url.path = request.uri().path(),
        http.response.status_code = tracing::field::Empty,
    );
    if !span.is_disabled() {
        let parent = TraceContextPropagator::new().extract(&Headers(request.headers()));
        if parent.span().span_context().is_valid() {
            // Without a layer for traces nobody is there to take it.
            let _ = span.set_parent(parent);
        }
    }
    span
}

/// The `traceparent` of the span that is current; `None` if it is not traced.
pub(super) fn current() -> Option<String> {
    let context = Span::current().context();
    let span = context.span();
    let ids = span.span_context();
    ids.is_valid().then(|| format!("00-{}-{}-{:02x}", ids.trace_id(), ids.span_id(), ids.trace_flags().to_u8()))
}

/// A header that stands twice says nothing: two readers could follow two traces.
struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        let mut values = self.0.get_all(key).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => value.to_str().ok(),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use opentelemetry::trace::{SpanId, TraceId, TracerProvider};
    use opentelemetry_sdk::error::OTelSdkResult;
    use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
    use std::sync::{Arc, Mutex};
    use tracing_subscriber::layer::SubscriberExt;

    #[derive(Debug, Clone, Default)]
    struct Kept(Arc<Mutex<Vec<SpanData>>>);

    impl SpanExporter for Kept {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.0.lock().unwrap().extend(batch);
            Ok(())
        }
    }

    /// The request's span, the one within it, and what the one within tells an upstream.
    fn traced(headers: &[&str]) -> (SpanData, SpanData, String) {
        let kept = Kept::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(kept.clone()).build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let mut request = Request::builder().uri("/mcp/orders");
        for header in headers {
            request = request.header("traceparent", *header);
        }
        let request = request.body(()).unwrap();
        let told = tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            of_request(&request).in_scope(|| tracing::debug_span!("forward").in_scope(current)).unwrap()
        });
        let spans = kept.0.lock().unwrap().clone();
        let named = |name: &str| spans.iter().find(|span| span.name == name).unwrap().clone();
        (named("request"), named("forward"), told)
    }

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn the_callers_span_is_the_parent_and_an_upstream_is_told_of_ours() {
        let (request, forward, told) = traced(&[&format!("00-{TRACE}-00f067aa0ba902b7-01")]);
        assert_eq!(request.span_context.trace_id(), TraceId::from_hex(TRACE).unwrap());
        assert_eq!(request.parent_span_id, SpanId::from_hex("00f067aa0ba902b7").unwrap());
        assert_eq!(forward.parent_span_id, request.span_context.span_id());
        assert_eq!(told, format!("00-{TRACE}-{}-01", forward.span_context.span_id()));
    }

    #[test]
    fn a_trace_that_is_none_begins_anew() {
        let good = format!("00-{TRACE}-00f067aa0ba902b7-01");
        let zero = format!("00-{TRACE}-0000000000000000-01");
        for headers in [&[][..], &["nonsense"], &["00-xyz-00f067aa0ba902b7-01"], &[&zero], &[&good, &good]] {
            let (request, forward, told) = traced(headers);
            assert_eq!(request.parent_span_id, SpanId::INVALID, "{headers:?}");
            assert_eq!(forward.parent_span_id, request.span_context.span_id());
            assert!(told.contains(&request.span_context.trace_id().to_string()) && !told.contains(TRACE), "{headers:?}: {told}");
        }
    }

    #[test]
    fn without_traces_there_is_nothing_to_tell() {
        let request = Request::builder().header("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01")).body(()).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry(), || {
            assert_eq!(of_request(&request).in_scope(current), None);
        });
    }
}
