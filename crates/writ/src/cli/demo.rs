//! `writ demo`.
use super::{Common, Failure};
use clap::Args;
use std::process::ExitCode;
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {}
pub(crate) async fn run(_common: &Common, _args: DemoArgs) -> Result<ExitCode, Failure> {
    Ok(ExitCode::SUCCESS)
}
