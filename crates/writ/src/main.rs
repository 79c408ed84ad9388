//! Writ: one binary. It reads the command line and hands over; nothing else lives here.

mod agent;
mod cli;
mod client;
mod config;
mod demo;
mod dev_issuer;
mod key_file;
mod log_check;
mod policy_folder;
mod server;
mod system;
mod telemetry;
mod web;
mod workload_api;

fn main() -> std::process::ExitCode {
    cli::run()
}
