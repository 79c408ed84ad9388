//! Operational logs and traces of a server: set up once, flushed at the end. What is logged is everybody's own business;
//! none of it is the audit log. Metrics live in `metrics`.

use crate::config::{LogFormat, Telemetry};
use anyhow::Context;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{Protocol, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::runtime::Tokio;
use opentelemetry_sdk::trace::SdkTracerProvider;
use opentelemetry_sdk::trace::span_processor_with_async_runtime::BatchSpanProcessor;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::filter::targets::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

/// Keeps the exporter of traces.
#[must_use]
pub(crate) struct Guard(Option<SdkTracerProvider>);

impl Guard {
    /// Sends what is left.
    pub(crate) async fn finish(self) {
        let Some(provider) = self.0 else { return };
        // It waits for a task of the runtime, so it must not sit on one of the runtime's threads.
        let sent = tokio::task::spawn_blocking(move || provider.shutdown()).await;
        if !matches!(sent, Ok(Ok(()))) {
            tracing::warn!("the last traces were not sent");
        }
    }
}

/// Starts logging to standard error, and tracing if it is configured.
///
/// # Errors
/// If the exporter of traces cannot be made, or logging was started before.
pub(crate) fn start(settings: &Telemetry) -> anyhow::Result<Guard> {
    let filter: Targets = settings.log_level.parse().context("the log filter")?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match settings.log_format {
        LogFormat::Json => lines.json().flatten_event(true).with_filter(filter.clone()).boxed(),
        LogFormat::Text => {
            let colour = crate::cli::output::colour_on_stderr();
            lines.with_ansi(colour).with_target(false).with_filter(filter).boxed()
        }
    };
    let provider = settings.otlp_endpoint.as_deref().map(exporter).transpose()?;
    let traced = Targets::new().with_default(LevelFilter::INFO);
    let traced = traced.with_targets(["writ", "gateway", "authority"].map(|target| (target, LevelFilter::DEBUG)));
    let traces = provider
        .as_ref()
        .map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer("writ")).with_filter(traced.clone()));
    let layers = tracing_subscriber::registry().with(lines).with(traces);
    #[cfg(debug_assertions)]
    let layers = layers.with(crate::step::listener());
    layers.try_init().context("logging cannot be started twice")?;
    Ok(Guard(provider))
}

fn exporter(endpoint: &str) -> anyhow::Result<SdkTracerProvider> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_endpoint(endpoint)
        .with_protocol(Protocol::HttpBinary)
        .build()
        .context("the exporter of traces")?;
    let resource = Resource::builder().with_service_name("writ").build();
    // On the runtime: its HTTP client needs one, and the other kind of processor works on a bare thread.
    let processor = BatchSpanProcessor::builder(exporter, Tokio).build();
    Ok(SdkTracerProvider::builder().with_span_processor(processor).with_resource(resource).build())
}
