//! Writ: one binary.

mod config;

fn main() {
    drop(
        config::load(std::path::Path::new("writ.toml"))
            .map_err(|refused| refused.0.iter().map(|f| f.render(true)).collect::<String>()),
    );
}
