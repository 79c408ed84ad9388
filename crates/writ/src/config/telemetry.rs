//! `[telemetry]`: logs, metrics, traces. Reads the table; `crate::telemetry` is what acts on it.

use super::option::{Opt, Section, env_opt, opt};
use super::read::Table;
use super::server::secure_url;

/// `[telemetry]`.
pub(crate) static TELEMETRY: Section = Section {
    header: "[telemetry]",
    doc: "Operational logs, metrics and traces. None of them is the audit log.",
    options: OPTIONS,
};

const OPTIONS: &[Opt] = &[
    env_opt("log_format", "`text` or `json`", "`text`", "WRIT_LOG_FORMAT", "How operational log lines look (standard error)."),
    env_opt("log_level", "a filter", "`info`", "WRIT_LOG", "What is logged: a level, or a filter such as `info,gateway=debug`."),
    env_opt(
        "otlp_endpoint",
        "a URL",
        "no traces",
        "WRIT_OTLP_ENDPOINT",
        "Where OpenTelemetry traces go (OTLP over HTTP, protobuf), for example `http://127.0.0.1:4318/v1/traces`.",
    ),
    opt("metrics", "`true` or `false`", "`true`", "Serve Prometheus metrics at `/metrics`."),
];

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[telemetry]`.
#[derive(Debug, Clone)]
pub(crate) struct Telemetry {
    /// How log lines look.
    pub(crate) log_format: LogFormat,
    /// What is logged.
    pub(crate) log_level: String,
    /// Where traces go.
    pub(crate) otlp_endpoint: Option<String>,
    /// Serve `/metrics`.
    pub(crate) metrics: bool,
}

/// Reads `[telemetry]`.
pub(crate) fn read(table: &Table<'_>) -> Telemetry {
    let level = table.text("log_level").filter(|level| {
        let parsed = level.value.parse::<tracing_subscriber::filter::targets::Targets>();
        if let Err(error) = &parsed {
            table.push(level.fault(format!("`{}` is not a log filter: {error}", level.value)).help("for example \"info\""));
        }
        parsed.is_ok()
    });
    Telemetry {
        log_format: table.word("log_format", &[("text", LogFormat::Text), ("json", LogFormat::Json)]).unwrap_or(LogFormat::Text),
        log_level: level.map_or_else(|| "info".to_owned(), |level| level.value),
        otlp_endpoint: table
            .text("otlp_endpoint")
            .and_then(|url| secure_url(table, &url, "otlp_endpoint"))
            .map(|url| url.to_string()),
        metrics: table.flag("metrics").unwrap_or(true),
    }
}
