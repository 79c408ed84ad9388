//! `[[operator]]`: who may use the control API, known by the hash of a random secret.

use super::option::{Opt, Section, opt};
use super::read::Table;
use control::{Operator, Role};
use data_encoding::HEXLOWER_PERMISSIVE;

/// `[[operator]]`.
pub(crate) static OPERATOR: Section = Section {
    header: "[[operator]]",
    doc: "Who may use `/v1`, and which OAuth clients may introspect or revoke tokens. Only the hash of the secret stands here.",
    options: OPTIONS,
};

const OPTIONS: &[Opt] = &[
    opt("name", "text", "required", "The name that the log records."),
    opt(
        "secret_sha256",
        "64 hexadecimal digits",
        "required",
        "SHA-256 of the operator's secret. Make one with `openssl rand -hex 32 | tee operator.secret | tr -d '\\n' | sha256sum`; the secret must have at least 256 random bits.",
    ),
    opt(
        "roles",
        "a list of `admin`, `auditor`, `introspect`",
        "required",
        "`admin` changes the inventory and ends tasks, `auditor` reads everything, `introspect` uses `/oauth/introspect` and `/oauth/revoke`.",
    ),
];

/// Reads one operator.
pub(crate) fn read(table: &Table<'_>) -> Option<Operator> {
    let name = table.needed("name");
    let hash = table.needed("secret_sha256").and_then(|given| {
        let bytes = unhex(&given.value);
        if bytes.is_none() {
            table.push(
                given
                    .fault("`secret_sha256` must be 64 hexadecimal digits")
                    .help("it is the hash of the secret, never the secret itself"),
            );
        }
        bytes
    });
    let roles = [("admin", Role::Admin), ("auditor", Role::Auditor), ("introspect", Role::Introspect)];
    let given = table.texts("roles");
    if given.as_ref().is_none_or(Vec::is_empty) {
        table.push(table.fault("an operator needs at least one role").help("roles = [\"admin\"]"));
    }
    let roles = given.unwrap_or_default().iter().filter_map(|role| table.choose(role, &roles)).collect();
    Some(Operator { name: name?.value, secret_sha256: hash?, roles })
}

/// 32 bytes in hexadecimal.
fn unhex(text: &str) -> Option<[u8; 32]> {
    HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?.try_into().ok()
}
