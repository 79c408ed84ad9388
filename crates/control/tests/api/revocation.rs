//! Claims about published revocation lists: anybody reads them, a revocation is in the next answer, and no path leads to a
//! file that is no such list.

use crate::served::Served;
use authority::target::TargetProfile;
use authority::{Actor, ConfiguredTarget};
use std::path::Path;
use std::sync::Arc;
use testkit::FakeTarget;

const PEM: &str = "-----BEGIN X509 CRL-----\nMAECAw==\n-----END X509 CRL-----\n";

/// A control plane with a target `web` of this kind, whose list is at `path`.
async fn served(kind: &'static str, path: &Path) -> Served {
    let served = Served::new().await;
    let profile = TargetProfile { kind, revocation_list: Some(path.to_owned()), ..testkit::profile("web") };
    let target = ConfiguredTarget { profile, driver: Arc::new(FakeTarget::default()), revision: String::new() };
    served.world.authority.set_targets(vec![target], &Actor::System).await.unwrap();
    served
}

#[tokio::test]
async fn anybody_reads_the_list_and_a_revocation_is_in_the_next_answer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.krl");
    let served = served("ssh", &path).await;
    assert_eq!(served.get("/targets/web/krl").await.refusal(), (404, "not_found".into()), "not written yet");
    std::fs::write(&path, b"SSHKRL\n\0one").unwrap();
    let first = served.get("/targets/web/krl").await;
    assert_eq!((first.status.as_u16(), first.body.as_slice()), (200, b"SSHKRL\n\0one".as_slice()));
    assert_eq!([first.header("content-type"), first.header("cache-control")], ["application/octet-stream", "public, no-cache"]);
    for held in [first.header("etag").to_owned(), format!("\"other\", W/{}", first.header("etag")), "*".to_owned()] {
        let same = served.ask("GET", "/targets/web/krl", &[("if-none-match", &held)], "").await;
        assert_eq!((same.status.as_u16(), same.body.len(), same.header("etag")), (304, 0, first.header("etag")), "{held}");
    }
    std::fs::write(&path, b"SSHKRL\n\0two").unwrap();
    let next = served.ask("GET", "/targets/web/krl", &[("if-none-match", first.header("etag"))], "").await;
    assert_eq!((next.status.as_u16(), next.body.as_slice()), (200, b"SSHKRL\n\0two".as_slice()));
}

#[tokio::test]
async fn a_list_of_certificates_is_served_in_der() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.crl");
    std::fs::write(&path, PEM).unwrap();
    let served = served("x509", &path).await;
    let answer = served.get("/targets/web/crl").await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "application/pkix-crl"));
    assert_eq!(answer.body, [0x30, 1, 2, 3]);
    let head = served.ask("HEAD", "/targets/web/crl", &[], "").await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
}

#[tokio::test]
async fn nothing_but_the_list_of_a_target_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.krl");
    let key = "-----BEGIN PRIVATE KEY-----\nMAECAw==\n-----END PRIVATE KEY-----\n";
    for (kind, content) in [("ssh", PEM), ("ssh", key), ("x509", key), ("x509", "SSHKRL\n\0one"), ("postgresql", PEM)] {
        std::fs::write(&path, content).unwrap();
        let served = served(kind, &path).await;
        for asked in ["/targets/web/krl", "/targets/web/crl"] {
            assert_eq!(served.get(asked).await.refusal(), (404, "not_found".into()), "{asked} of {kind}: {content}");
        }
    }
    let served = served("ssh", &path).await;
    for asked in ["/targets/none/krl", "/targets/..%2fweb/krl", "/targets/web/krl/..", "/targets/web/web.krl"] {
        assert_eq!(served.get(asked).await.status, 404, "{asked}");
    }
}
