//! The way to the server: TLS is checked against the named authority alone, and the server's name counts.

use super::*;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// An authority and a certificate of it for `name`: PEM of the authority, of the certificate, of its key.
fn certificate(name: &str) -> (String, String, String) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    (issuer.pem(), server.pem(), key.serialize_pem())
}

/// The server shows this certificate from now on. The files are written by the server itself, so that they are its own.
fn show(lab: &Lab, certificate: &str, key: &str) {
    let folder = lab.server.socket().display();
    for (file, text) in [("server.crt", certificate), ("server.key", key)] {
        let lines: Vec<_> = text.lines().map(|line| format!("('{line}')")).collect();
        let write = format!("COPY (VALUES {}) TO PROGRAM 'umask 077; cat > {folder}/{file}'", lines.join(","));
        lab.server.psql("postgres", &write).unwrap();
    }
    let settings = format!(
        "ALTER SYSTEM SET ssl_cert_file = '{folder}/server.crt';\nALTER SYSTEM SET ssl_key_file = '{folder}/server.key';\nALTER SYSTEM SET ssl = on;"
    );
    lab.server.psql("postgres", &settings).unwrap();
    lab.server.down();
    lab.server.up();
}

/// The target with this authority, and whether it issues.
async fn issues(lab: &Lab, mode: &str, authority: &str) -> Result<Minted, TargetError> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, authority).unwrap();
    let mut config = config(lab.server.port());
    config.connect.insert("tls".to_owned(), mode.into());
    config.connect.insert("ca_file".to_owned(), file.to_str().unwrap().into());
    let surroundings: Arc<dyn Surroundings> = Arc::new(TestSurroundings);
    let target = targets::open(&config, &surroundings).unwrap();
    let plan = lab.plan_for(lab.grant(), None, 60).unwrap();
    target.issue(&plan, &shown(&plan).await).await
}

#[tokio::test]
async fn server_is_checked_by_name_and_by_the_named_authority_alone() {
    let Some(lab) = Lab::start() else { return };
    let (authority, certificate_pem, key) = certificate("127.0.0.1");
    show(&lab, &certificate_pem, &key);
    let minted = issues(&lab, "verify-full", &authority).await.unwrap();
    assert_eq!((minted.fields["sslmode"].as_str(), &minted.fields["ca_pem"]), ("verify-full", &authority));
    let (stranger, _, _) = certificate("127.0.0.1");
    let refused = issues(&lab, "verify-full", &stranger).await.unwrap_err();
    assert!(matches!(refused, TargetError::Unreachable(_)), "{refused:?}");
    let (authority, certificate_pem, key) = certificate("other.example");
    show(&lab, &certificate_pem, &key);
    let refused = issues(&lab, "verify-full", &authority).await.unwrap_err();
    assert!(matches!(refused, TargetError::Unreachable(_)), "{refused:?}");
    issues(&lab, "verify-ca", &authority).await.unwrap();
}

#[tokio::test]
async fn transport_without_protection_is_only_for_this_machine() {
    let surroundings: Arc<dyn Surroundings> = Arc::new(TestSurroundings);
    for (host, tls, faulty) in [
        ("10.0.0.1", "off", "connect.tls"),
        ("db.example", "off", "connect.tls"),
        ("db.example", "verify-full", "connect.ca_file"),
    ] {
        let mut config = config(5_432);
        config.connect.insert("host".to_owned(), host.into());
        config.connect.insert("tls".to_owned(), tls.into());
        let Err(faults) = targets::open(&config, &surroundings) else { panic!("{host} with {tls} was opened") };
        assert!(faults.0.iter().any(|fault| fault.key.join(".") == faulty), "{faults}");
    }
}
