//! Claims about configuration files: what is read, and what is said about what cannot be.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;
use std::fs;

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

fn load_text(files: &[(&str, &str)], env: Lookup<'_>) -> Result<Config, Vec<(usize, usize, String, String)>> {
    let dir = folder(files);
    load_with(&dir.path().join("writ.toml"), env).map_err(|refused| {
        refused
            .0
            .iter()
            .map(|fault| {
                let json = fault.to_json();
                let number = |name: &str| usize::try_from(json.get(name).unwrap().as_u64().unwrap()).unwrap();
                let text = |name: &str| json.get(name).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
                (number("line"), number("column"), text("message"), text("help"))
            })
            .collect()
    })
}

fn faults(writ: &str) -> Vec<(usize, usize, String, String)> {
    load_text(&[("writ.toml", writ)], &|_| None).unwrap_err()
}

const FULL: &str = r#"
[server]
listen = "127.0.0.1:0"
public_url = "https://writ.example.com/"
allowed_hosts = ["writ.internal"]
allowed_origins = ["https://tools.example.com"]
plain_http_hosts = ["MCP.internal"]
connections_max = 100
drain_secs = 5
tls = { cert = "cert.pem", key = "key.pem", client_certs = "request" }
[data]
dir = "state"
node = "node-7"
anchor = "/mnt/anchor"
[policy]
dir = "rules"
[agents]
dir = "inventory"
[tokens]
lifetime_secs = 120
dpop_nonce = "required"
[telemetry]
log_format = "json"
log_level = "info,gateway=debug"
otlp_endpoint = "http://127.0.0.1:4318/v1/traces"
metrics = false
[client]
server = "https://writ.example.com"
operator_secret_file = "operator.secret"
ca_file = "ca.pem"
[[provider]]
name = "ci"
kind = "oidc"
issuer = "https://token.actions.githubusercontent.com"
jwks_url = "https://token.actions.githubusercontent.com/.well-known/jwks"
audience = "writ"
algorithms = ["RS256"]
max_age_secs = 300
max_lifetime_secs = 600
leeway_secs = 10
single_use = true
[[provider]]
name = "mesh"
kind = "spiffe"
trust_domain = "prod.example.com"
workload_api = "unix:///run/spire/agent.sock"
single_use = false
[[operator]]
name = "ana"
secret_sha256 = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
roles = ["admin", "auditor"]
[[upstream]]
name = "orders"
owner = "shop"
url = "http://mcp.internal:9000/mcp"
ca_file = "orders-ca.pem"
timeout_secs = 5
[upstream.injection]
header = "Authorization"
env = "ORDERS_TOKEN"
[[upstream]]
name = "files"
owner = "platform"
command = "mcp-server-filesystem"
args = ["/srv"]
vars = { LOG = "info" }
env = { TOKEN = { file = "/run/secrets/files" } }
"#;

const AGENT_FILE: &str = r#"
owner = "shop"
purpose = "Answers tickets."
review_by = "2030-01-01"
intents = ["refund-order"]
[[identity]]
provider = "ci"
claims = { repository_id = "123", ref = { prefix = "refs/heads/" }, attempt = 1, "kubernetes.io/namespace" = "prod" }
"#;

#[test]
fn every_option_is_read_into_its_type() {
    // What an editor hides beside an agent's file is no agent.
    let files = [("writ.toml", FULL), ("inventory/support-bot.toml", AGENT_FILE), ("inventory/.#support-bot.toml", "half")];
    let config = load_text(&files, &|_| None).unwrap();
    assert_eq!(config.server.public_url, "https://writ.example.com");
    assert!(config.server.tls.unwrap().request_client_certs);
    assert!(config.tokens.nonce_required);
    assert_eq!(config.providers.len(), 2);
    assert_eq!(config.upstreams.len(), 2);
    let [(name, path)] = &config.upstream_ca_files[..] else { unreachable!("one file") };
    assert!(name.as_str() == "orders" && path.ends_with("orders-ca.pem") && path != Path::new("orders-ca.pem"));
    assert_eq!(config.upstreams[0].injection.as_ref().unwrap().prefix, "Bearer ");
    let agent = &config.agents[0];
    assert_eq!(agent.id.as_str(), "support-bot");
    assert_eq!(agent.rules[0].claims.len(), 4);
    assert!(agent.rules[0].is_wide());
    assert_eq!(agent.review_by, domain::Timestamp::from_secs(1_893_456_000));
}

#[test]
fn an_upstream_without_tls_needs_its_host_to_be_named() {
    let upstream = |server: &str, url: &str| {
        let text = format!("[server]\n{server}\n[[upstream]]\nname = \"a\"\nowner = \"b\"\nurl = \"{url}\"\n");
        load_text(&[("writ.toml", &text)], &|_| None)
    };
    let named = r#"plain_http_hosts = ["mcp.internal", "10.0.0.7"]"#;
    for url in
        ["http://mcp.internal/mcp", "http://MCP.internal:9000/mcp", "http://10.0.0.7/", "http://localhost:1/", "https://x.test/"]
    {
        assert!(upstream(named, url).is_ok(), "{url}");
    }
    for (server, url) in [
        (named, "http://other.internal/mcp"),
        (named, "http://a.mcp.internal/mcp"),
        (named, "http://mcp.internal.evil.test/mcp"),
        (named, "http://10.0.0.70/mcp"),
        (named, "ftp://mcp.internal/mcp"),
        ("", "http://mcp.internal/mcp"),
    ] {
        assert!(upstream(server, url).unwrap_err().iter().any(|fault| fault.2.contains("must start with `https://`")), "{url}");
    }
    let found = faults("[[upstream]]\nname = \"a\"\nowner = \"b\"\ncommand = \"x\"\nca_file = \"ca.pem\"\n");
    assert!(found.iter().any(|fault| fault.2.contains("`ca_file` is about TLS")), "{found:?}");
}

#[test]
fn what_nobody_can_send_is_no_name_and_no_origin() {
    let server = |text: &str| load_text(&[("writ.toml", &format!("[server]\n{text}\n"))], &|_| None).map(drop);
    let good = r#"allowed_hosts = ["writ.internal", "10.0.0.7:8700", "[::1]:8700", "WRIT"]
allowed_origins = ["https://app.example.com", "http://localhost:3000"]"#;
    assert_eq!(server(good), Ok(()));
    for wrong in [
        r#"allowed_hosts = ["https://writ.internal"]"#,
        r#"allowed_hosts = ["writ.internal/"]"#,
        r#"allowed_hosts = ["a@writ.internal"]"#,
        r#"allowed_hosts = [""]"#,
        r#"allowed_origins = ["app.example.com"]"#,
        r#"allowed_origins = ["https://app.example.com/"]"#,
        r#"allowed_origins = ["https://app.example.com:443"]"#,
        r#"allowed_origins = ["*"]"#,
    ] {
        let found = server(wrong).unwrap_err();
        assert!(found.iter().any(|fault| fault.2.contains("is nothing that a client would send")), "{wrong}: {found:?}");
    }
    let found =
        faults("[[provider]]\nname = \"ci\"\nkind = \"oidc\"\nissuer = \"https://i.test\"\njwks_file = \"k\"\nalgorithms = []\n");
    assert!(found.iter().any(|fault| fault.2.contains("`algorithms` is empty")), "{found:?}");
}

#[test]
fn secrets_of_upstreams_are_found_from_the_folder_of_the_configuration() {
    let text = r#"
[[upstream]]
name = "a"
owner = "o"
url = "https://a.example/mcp"
injection = { file = "secrets/a" }
[[upstream]]
name = "b"
owner = "o"
command = "b"
env = { KEY = { file = "secrets/b" }, OTHER = { file = "/run/other" } }
"#;
    let dir = folder(&[("writ.toml", text)]);
    let config = load_with(&dir.path().join("writ.toml"), &|_| None).unwrap();
    let at = |path: &str| domain::SecretRef::File(dir.path().join(path).to_string_lossy().into_owned());
    assert_eq!(config.upstreams[0].injection.as_ref().unwrap().secret, at("secrets/a"));
    let domain::Transport::Stdio { env, .. } = &config.upstreams[1].transport else { unreachable!("it has a command") };
    let mut files: Vec<_> = env.iter().map(|(_, file)| format!("{file:?}")).collect();
    files.sort();
    assert_eq!(files, [format!("{:?}", at("/run/other")), format!("{:?}", at("secrets/b"))]);
}

#[test]
fn a_credential_stands_in_no_url_and_in_no_header_of_the_transport() {
    let upstream = |url: &str, header: &str| {
        let injection = format!("injection = {{ header = \"{header}\", env = \"X\" }}");
        let text = format!("[[upstream]]\nname = \"a\"\nowner = \"b\"\nurl = \"{url}\"\n{injection}\n");
        load_text(&[("writ.toml", &text)], &|_| None).map(drop)
    };
    assert!(upstream("https://a.example/mcp", "X-Api-Key").is_ok());
    for url in ["https://user:hunter2@a.example/mcp", "https://hunter2@a.example/", "http://:hunter2@localhost/"] {
        let told = upstream(url, "x-api-key").unwrap_err();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].2.contains("must not hold credentials") && !format!("{told:?}").contains("hunter2"), "{told:?}");
    }
    for header in ["", "Host", "content-length", "Mcp-Session-Id", "a b", "x:y"] {
        let told = upstream("https://a.example/mcp", header).unwrap_err();
        assert!(told[0].2.contains("cannot carry a credential"), "{header}: {told:?}");
    }
}

#[test]
fn an_empty_file_gives_the_documented_defaults() {
    let config = load_text(&[("writ.toml", "")], &|_| None).unwrap();
    assert_eq!(config.server.public_url, "http://127.0.0.1:8700");
    assert_eq!((config.tokens.lifetime_secs, config.tokens.nonce_required), (300, false));
    assert_eq!(config.data.node, "node-1");
    assert!(config.data.dir.ends_with("data") && config.policy.policy.ends_with("policy"));
}

#[test]
fn all_faults_appear_at_once_with_their_places_and_hints() {
    let found = faults(
        r#"[server]
lisen = "127.0.0.1:1"
public_url = "http://writ.example.com"
drain_secs = "soon"
[tokens]
lifetime_secs = 9
dpop_nonce = "requird"
[[provider]]
name = "ci"
kind = "oidc"
issuer = "https://ci.example"
[[operator]]
name = "ana"
secret_sha256 = "hunter2"
roles = ["amin"]
[[upstream]]
name = "Orders"
owner = "shop"
command = "x"
env = { TOKEN = "hunter2" }
"#,
    );
    let told: Vec<_> =
        found.iter().map(|(line, column, message, help)| (*line, *column, message.as_str(), help.as_str())).collect();
    let expected = [
        (2, 1, "unknown option `lisen` in [server]", "did you mean `listen`?"),
        (
            3,
            14,
            "`public_url` must start with `https://`",
            "plain `http` is accepted only for `localhost`, `127.0.0.1` and `[::1]`",
        ),
        (4, 14, "`drain_secs` must be a whole number, but this is text", ""),
        (6, 17, "`lifetime_secs` must be a whole number from 30 to 3600", ""),
        (7, 14, "`requird` is not allowed here", "did you mean `required`?"),
        (8, 1, "this provider needs `jwks_url` or `jwks_file`", ""),
        (14, 17, "`secret_sha256` must be 64 hexadecimal digits", "it is the hash of the secret, never the secret itself"),
        (15, 10, "`amin` is not allowed here", "did you mean `admin`?"),
        (
            17,
            8,
            "`Orders` is not a valid upstream name: use 1 to 64 of a-z, 0-9, `-`, `_` and `.`, starting with a letter or digit",
            "",
        ),
        (
            20,
            17,
            "a secret is given by reference",
            "write `{ env = \"VARIABLE\" }` or `{ file = \"path\" }`; a value that is no secret goes into `vars`",
        ),
    ];
    assert_eq!(told, expected);
}

#[test]
fn faults_of_agent_files_stand_beside_those_of_writ_toml() {
    let agent = "owner = \"shop\"\npurpose = \"x\"\nreview_by = \"soon\"\nintents = []\n[[identity]]\nprovider = \"c1\"\nclaims = { ref = { prefix = \"\" } }\n";
    let good = AGENT_FILE.replace("\"ci\"", "\"cj\"");
    let found =
        load_text(&[("writ.toml", FULL), ("inventory/a.toml", agent), ("inventory/b.toml", &good)], &|_| None).unwrap_err();
    let told: Vec<_> = found.iter().map(|(_, _, message, help)| (message.as_str(), help.as_str())).collect();
    assert_eq!(
        told,
        [
            ("`soon` is not a date", "write it as \"2027-03-31\""),
            ("an empty prefix would match everything", ""),
            ("there is no provider `cj`", "did you mean `ci`?"),
        ]
    );
}

#[test]
fn broken_syntax_is_shown_with_its_line() {
    let found = faults("[server]\nlisten = \n[data\n");
    assert_eq!(found.iter().map(|fault| fault.0).collect::<Vec<_>>(), [2, 3], "{found:?}");
}

#[test]
fn a_name_that_stands_twice_is_refused() {
    let found =
        faults("[[upstream]]\nname='a'\nowner='x'\nurl='https://a'\n[[upstream]]\nname='a'\nowner='x'\nurl='https://b'\n");
    assert_eq!(found[0].2, "there are two [[upstream]] with the name `a`");
}

#[test]
fn an_issuer_that_stands_twice_is_refused() {
    let oidc = |name: &str| format!("[[provider]]\nname='{name}'\nkind='oidc'\nissuer='https://i'\njwks_file='j'\n");
    let found = faults(&format!("{}{}", oidc("a"), oidc("b")));
    let wanted = "[[provider]] `a` and `b` have the same issuer `https://i`";
    assert!(found.iter().any(|fault| fault.2 == wanted), "{found:?}");
}

#[test]
fn a_program_cannot_be_given_together_with_a_url() {
    let found = faults("[[upstream]]\nname='a'\nowner='x'\nurl='https://a'\ncommand='x'\n");
    assert_eq!(found[0].2, "an upstream has either `url` or `command`, not both");
}

#[test]
fn the_environment_overrides_only_the_documented_options() {
    let env = |name: &str| match name {
        "WRIT_LISTEN" => Some("127.0.0.1:7".to_owned()),
        "WRIT_DATA_DIR" => Some("/elsewhere".to_owned()),
        "WRIT_TOKENS_LIFETIME_SECS" => Some("9999".to_owned()),
        _ => None,
    };
    let config = load_text(&[("writ.toml", "[server]\nlisten = \"127.0.0.1:1\"\n")], &env).unwrap();
    assert_eq!(config.server.listen.port(), 7);
    assert_eq!(config.data.dir, Path::new("/elsewhere"));
    assert_eq!(config.tokens.lifetime_secs, 300);
    let wrong = load_text(&[("writ.toml", "")], &|name| (name == "WRIT_LISTEN").then(|| "here".to_owned())).unwrap_err();
    assert_eq!((wrong[0].0, wrong[0].1), (1, 13));
}

#[test]
fn a_fault_is_rendered_with_line_caret_and_hint() {
    let dir = folder(&[("writ.toml", "[server]\nlisen = 1\n")]);
    let refused = load_with(&dir.path().join("writ.toml"), &|_| None).unwrap_err();
    let text = refused.0[0].render(false).replace(&dir.path().display().to_string(), "");
    assert_eq!(
        text.trim_end(),
        "  × unknown option `lisen` in [server]
   ╭─[/writ.toml:2:1]
 1 │ [server]
 2 │ lisen = 1
   · ──┬──
   ·   ╰── here
   ╰────
  help: did you mean `listen`?"
    );
}

#[test]
fn the_reference_page_is_what_the_registry_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    if crate::system::variable("WRIT_UPDATE_DOCS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, markdown()).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(written, markdown(), "run this test with WRIT_UPDATE_DOCS=1 to write docs/configuration.md");
}
