//! Writ: one binary. It reads the command line and hands over; nothing else lives here.

mod agent;
mod cli;
mod client;
mod config;
mod credential;
mod demo;
mod dev_issuer;
mod key_file;
mod log_check;
mod policy_folder;
mod server;
#[cfg(debug_assertions)]
mod step;
mod system;
mod target_files;
mod telemetry;
mod web;
mod workload_api;

/// A governed call allocates some hundred times, on one thread, and frees on another: measured, this is worth a tenth of
/// the calls per second.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::run()
}
