//! The API's description (OpenAPI 3.1). Written by hand in `openapi.json`; a test holds it against the table of endpoints,
//! and another holds real answers against it. Serves nothing itself.

use serde_json::{Value, json};

const DOCUMENT: &str = include_str!("openapi.json");

/// The description, with this server in it.
pub(crate) fn document(issuer: &str) -> Value {
    let mut document: Value = serde_json::from_str(DOCUMENT).unwrap_or_default();
    if let Some(members) = document.as_object_mut() {
        members.insert("servers".to_owned(), json!([{ "url": issuer }]));
    }
    document
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use crate::router::endpoints;
    use std::collections::BTreeSet;

    const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

    fn described() -> BTreeSet<(String, String)> {
        let document = document("https://writ.test");
        let paths = document["paths"].as_object().unwrap();
        let operations = paths.iter().flat_map(|(path, item)| item.as_object().unwrap().keys().map(move |method| (method, path)));
        operations.filter(|(method, _)| METHODS.contains(&method.as_str())).map(|(m, p)| (m.clone(), p.clone())).collect()
    }

    #[test]
    fn every_endpoint_is_described_and_every_described_one_exists() {
        let served = endpoints().listed.into_iter().map(|(method, path)| (method.to_owned(), path.replace("{*", "{")));
        assert_eq!(served.collect::<BTreeSet<_>>(), described());
    }

    #[test]
    fn every_reference_resolves_and_every_operation_has_its_own_id() {
        let document = document("https://writ.test");
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1) {
            let pointer = reference.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
        let paths = document["paths"].as_object().unwrap();
        let operations = paths.values().flat_map(|item| item.as_object().unwrap().values());
        let ids: Vec<_> = operations.map(|operation| operation["operationId"].as_str().unwrap()).collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
    }
}
