//! Certificates that are almost X.509-SVIDs, each refused by its own rule (X509-SVID §§2-5).
//! Every certificate is made here; no key or file is kept.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SanType, date_time_ymd,
};

use super::*;
use crate::forge::NOW;
use crate::spiffe_id::TrustDomain;

type Authority = CertifiedIssuer<'static, KeyPair>;

/// Valid through January 2027; `NOW` is in its middle.
fn params(name: &str, uris: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(2027, 1, 1);
    params.not_after = date_time_ymd(2027, 2, 1);
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
    params
}

/// Each authority has a name of its own: path building goes by names.
fn authority_params(trust_domain: &str) -> CertificateParams {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut params = params(&format!("{trust_domain} authority {number}"), &[&format!("spiffe://{trust_domain}")]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

pub(crate) fn root(trust_domain: &str) -> Authority {
    CertifiedIssuer::self_signed(authority_params(trust_domain), KeyPair::generate().unwrap()).unwrap()
}

fn leaf_params(uri: &str) -> CertificateParams {
    let mut params = params("workload", &[uri]);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params
}

const ID: &str = "spiffe://example.org/agent/a";

fn sign(params: &CertificateParams, issuer: &Authority) -> CertificateDer<'static> {
    params.signed_by(&KeyPair::generate().unwrap(), issuer).unwrap().der().clone()
}

fn bundle(trust_domain: &str, roots: &[&Authority]) -> SpiffeBundle {
    let certificates = roots.iter().map(|root| root.der().clone()).collect();
    SpiffeBundle::of_x509(TrustDomain::parse(trust_domain).unwrap(), certificates).unwrap()
}

/// A leaf changed by `change`, under the right authority.
fn outcome(change: impl FnOnce(&mut CertificateParams)) -> Option<Error> {
    let root = root("example.org");
    let mut params = leaf_params(ID);
    change(&mut params);
    verify_x509_svid(&[sign(&params, &root)], &bundle("example.org", &[&root]), NOW).err()
}

fn refused(fault: LeafFault) -> Option<Error> {
    Some(Error::LeafRefused { fault })
}

fn chain(fault: ChainFault) -> Option<Error> {
    Some(Error::ChainInvalid { fault })
}

#[test]
fn a_workloads_certificate_proves_its_id() {
    let root = root("example.org");
    let leaf = sign(&leaf_params(ID), &root);
    let svid = verify_x509_svid(std::slice::from_ref(&leaf), &bundle("example.org", &[&root]), NOW).unwrap();
    assert_eq!(svid.spiffe_id.to_string(), ID);
    assert_eq!(svid.thumbprint, certificate_thumbprint(&leaf));
    assert_eq!(svid.thumbprint.len(), 43);
    assert_eq!((svid.not_before, svid.not_after), (UnixSeconds(1_798_761_600), UnixSeconds(1_801_440_000)));
    assert_eq!(claimed_spiffe_id(&leaf).unwrap(), svid.spiffe_id);
}

#[test]
fn keys_of_other_curves_and_intermediates_are_accepted() {
    for algorithm in [&PKCS_ED25519, &PKCS_ECDSA_P384_SHA384] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let root = CertifiedIssuer::self_signed(authority_params("example.org"), key).unwrap();
        let middle_params = authority_params("example.org");
        let middle = CertifiedIssuer::signed_by(middle_params, KeyPair::generate().unwrap(), &root).unwrap();
        let presented = [sign(&leaf_params(ID), &middle), middle.der().clone()];
        assert!(verify_x509_svid(&presented, &bundle("example.org", &[&root]), NOW).is_ok());
        let without = verify_x509_svid(&presented[..1], &bundle("example.org", &[&root]), NOW);
        assert_eq!(without.err(), chain(ChainFault::UnknownIssuer));
    }
}

#[test]
fn dns_names_may_stand_beside_the_id_and_extended_usage_may_be_absent() {
    assert_eq!(outcome(|leaf| leaf.subject_alt_names.push(SanType::DnsName("a.example.org".try_into().unwrap()))), None);
    assert_eq!(outcome(|leaf| leaf.extended_key_usages.clear()), None);
    assert_eq!(outcome(|leaf| leaf.key_usages.push(KeyUsagePurpose::KeyAgreement)), None);
}

#[test]
fn leaf_rules_decide() {
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    assert_eq!(outcome(|leaf| leaf.subject_alt_names.clear()), refused(LeafFault::UriSanCount));
    assert_eq!(outcome(|leaf| leaf.subject_alt_names.push(uri("spiffe://example.org/admin"))), refused(LeafFault::UriSanCount));
    assert_eq!(outcome(|leaf| leaf.subject_alt_names.push(uri("https://example.org/"))), refused(LeafFault::UriSanCount));
    assert_eq!(outcome(|leaf| leaf.subject_alt_names.push(uri(ID))), refused(LeafFault::UriSanCount));
    assert_eq!(outcome(|leaf| leaf.subject_alt_names = vec![uri("spiffe://example.org")]), refused(LeafFault::RootPath));
    let not_an_id = outcome(|leaf| leaf.subject_alt_names = vec![uri("https://example.org/agent/a")]);
    assert!(matches!(not_an_id, Some(Error::SpiffeId(_))), "{not_an_id:?}");
    let dots = outcome(|leaf| leaf.subject_alt_names = vec![uri("spiffe://example.org/agent/../admin")]);
    assert!(matches!(dots, Some(Error::SpiffeId(_))), "{dots:?}");

    assert_eq!(outcome(|leaf| leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)), refused(LeafFault::IsCa));
    assert_eq!(outcome(|leaf| leaf.key_usages.clear()), refused(LeafFault::KeyUsageMissing));
    let usages = |usages: &[KeyUsagePurpose]| outcome(|leaf| leaf.key_usages = usages.to_vec());
    use KeyUsagePurpose as Usage;
    assert_eq!(usages(&[Usage::KeyEncipherment]), refused(LeafFault::NoDigitalSignature));
    assert_eq!(usages(&[Usage::DigitalSignature, Usage::KeyCertSign]), refused(LeafFault::MaySign));
    assert_eq!(usages(&[Usage::DigitalSignature, Usage::CrlSign]), refused(LeafFault::MaySign));
    for purpose in
        [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::CodeSigning]
    {
        assert_eq!(outcome(|leaf| leaf.extended_key_usages = vec![purpose]), refused(LeafFault::ExtendedKeyUsage));
    }
}

/// Key usage `digitalSignature`, not marked critical.
#[test]
fn key_usage_must_be_critical() {
    let found = outcome(|leaf| {
        leaf.key_usages.clear();
        leaf.custom_extensions.push(CustomExtension::from_oid_content(&[2, 5, 29, 15], vec![3, 2, 7, 0x80]));
    });
    assert_eq!(found, refused(LeafFault::KeyUsageMissing));
}

#[test]
fn unknown_critical_extensions_are_refused() {
    let extension = |critical| {
        let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
        extension.set_criticality(critical);
        extension
    };
    assert_eq!(outcome(|leaf| leaf.custom_extensions.push(extension(false))), None);
    assert_eq!(outcome(|leaf| leaf.custom_extensions.push(extension(true))), chain(ChainFault::Malformed));
}

#[test]
fn certificates_are_only_valid_in_their_time() {
    let root = root("example.org");
    let leaf = [sign(&leaf_params(ID), &root)];
    let bundle = bundle("example.org", &[&root]);
    let at = |now| verify_x509_svid(&leaf, &bundle, UnixSeconds(now)).err();
    assert_eq!(at(1_798_761_600), None);
    assert_eq!(at(1_798_761_599), chain(ChainFault::NotYetValid));
    assert_eq!(at(1_801_440_000), None);
    assert_eq!(at(1_801_440_001), chain(ChainFault::Expired));
    assert_eq!(at(-1), chain(ChainFault::NotYetValid));
}

#[test]
fn a_trust_domain_vouches_for_itself_only() {
    let (ours, theirs) = (root("example.org"), root("evil.org"));
    let wrong = Some(Error::TrustDomainWrong { found: "evil.org".to_owned(), expected: "example.org".to_owned() });

    // Their authority names our workload; our bundle does not know it.
    let forged = [sign(&leaf_params(ID), &theirs)];
    assert_eq!(verify_x509_svid(&forged, &bundle("example.org", &[&ours]), NOW).err(), chain(ChainFault::UnknownIssuer));
    // The same, with their authority appended to the chain.
    let with_root = [forged[0].clone(), theirs.der().clone()];
    assert_eq!(verify_x509_svid(&with_root, &bundle("example.org", &[&ours]), NOW).err(), chain(ChainFault::UnknownIssuer));
    // Our authority, misused, names their workload.
    let strayed = [sign(&leaf_params("spiffe://evil.org/agent/a"), &ours)];
    assert_eq!(verify_x509_svid(&strayed, &bundle("example.org", &[&ours]), NOW).err(), wrong);
    // A foreign intermediate under our root.
    let middle = CertifiedIssuer::signed_by(authority_params("evil.org"), KeyPair::generate().unwrap(), &ours).unwrap();
    let bridged = [sign(&leaf_params(ID), &middle), middle.der().clone()];
    assert_eq!(verify_x509_svid(&bridged, &bundle("example.org", &[&ours]), NOW).err(), chain(ChainFault::NameConstraint));
}

#[test]
fn a_workload_cannot_sign_another() {
    let root = root("example.org");
    let workload = CertifiedIssuer::signed_by(leaf_params(ID), KeyPair::generate().unwrap(), &root).unwrap();
    let forged = sign(&leaf_params("spiffe://example.org/admin"), &workload);
    let found = verify_x509_svid(&[forged, workload.der().clone()], &bundle("example.org", &[&root]), NOW);
    assert_eq!(found.err(), chain(ChainFault::Usage));
}

#[test]
fn path_length_is_honoured() {
    let root = root("example.org");
    let mut constrained = authority_params("example.org");
    constrained.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let first = CertifiedIssuer::signed_by(constrained, KeyPair::generate().unwrap(), &root).unwrap();
    let second = CertifiedIssuer::signed_by(authority_params("example.org"), KeyPair::generate().unwrap(), &first).unwrap();
    let presented = [sign(&leaf_params(ID), &second), second.der().clone(), first.der().clone()];
    let found = verify_x509_svid(&presented, &bundle("example.org", &[&root]), NOW).err();
    assert_eq!(found, chain(ChainFault::Usage));
}

/// A constraint `permitted: URI <base>` as DER: SEQUENCE { [0] { SEQUENCE { [6] base } } }.
fn uri_constraint(base: &str) -> CustomExtension {
    let wrap = |tag: u8, inner: Vec<u8>| [vec![tag, u8::try_from(inner.len()).unwrap()], inner].concat();
    let subtree = wrap(0x30, wrap(0x86, base.as_bytes().to_vec()));
    let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, 30], wrap(0x30, wrap(0xa0, subtree)));
    extension.set_criticality(true);
    extension
}

#[test]
fn name_constraints_on_uris_are_refused_rather_than_guessed() {
    for base in ["example.org", "other.org"] {
        let root = root("example.org");
        let mut params = authority_params("example.org");
        params.custom_extensions.push(uri_constraint(base));
        let middle = CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &root).unwrap();
        let presented = [sign(&leaf_params(ID), &middle), middle.der().clone()];
        let found = verify_x509_svid(&presented, &bundle("example.org", &[&root]), NOW).err();
        assert_eq!(found, chain(ChainFault::NameConstraint), "{base}");
    }
}

#[test]
fn an_empty_bundle_revokes_everything() {
    let root = root("example.org");
    let found = verify_x509_svid(&[sign(&leaf_params(ID), &root)], &bundle("example.org", &[]), NOW);
    assert_eq!(found.err(), Some(Error::BundleEmpty { trust_domain: "example.org".to_owned() }));
}

#[test]
fn hostile_bytes_and_chains_are_refused() {
    let root = root("example.org");
    let bundle = bundle("example.org", &[&root]);
    let leaf = sign(&leaf_params(ID), &root);
    let length = Some(Error::ChainLength { limit: CHAIN_LENGTH_MAX });
    assert_eq!(verify_x509_svid(&[], &bundle, NOW).err(), length);
    assert_eq!(verify_x509_svid(&vec![leaf.clone(); CHAIN_LENGTH_MAX + 1], &bundle, NOW).err(), length);
    let check = |bytes: Vec<u8>| verify_x509_svid(&[CertificateDer::from(bytes)], &bundle, NOW).err();
    assert_eq!(check(Vec::new()), Some(Error::CertificateMalformed));
    assert_eq!(check(vec![0x30, 0x80, 0, 0]), Some(Error::CertificateMalformed));
    assert_eq!(check([leaf.as_ref(), &[0]].concat()), Some(Error::CertificateMalformed));
    assert_eq!(check(vec![0; CERTIFICATE_BYTES_MAX + 1]), Some(Error::TooLarge { limit: CERTIFICATE_BYTES_MAX }));
    let mut flipped = leaf.to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    assert!(check(flipped).is_some());
    for cut in (0..leaf.len()).step_by(7) {
        assert!(check(leaf[..cut].to_vec()).is_some());
    }
}
