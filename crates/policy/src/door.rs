//! A door for the fuzz targets (`fuzz/`): what a decision asks before Cedar, as functions of plain values. Compiled with
//! `--cfg fuzzing` alone and no part of the crate otherwise; holds no rule of its own.

/// Whether readers of this URI may resolve it differently.
#[must_use]
pub fn reads_in_several_ways(uri: &str) -> bool {
    crate::uri::reads_in_several_ways(uri)
}

/// Whether arguments fit the input schema of a tool's definition; `None` if there is no such tool to be called.
#[must_use]
pub fn takes(definition: &serde_json::Value, arguments: &serde_json::Map<String, serde_json::Value>) -> Option<bool> {
    let signature = crate::shape::signature(definition, crate::shape::Numbers::Decimal).ok()?;
    Some(crate::arguments::read(&signature.members, arguments).is_ok())
}
