//! AWS Signature Version 4 over a request as it is sent: in the `Authorization` header, or in the query as presigned URLs
//! have it. Owns the settings that services differ in. Pure: the time is an argument.
//! AWS General Reference, "Signature Version 4 signing process".

use super::config::SignatureIn;
use super::inject::Draft;
use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SignatureLocation, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4::SigningParams;
use http::{HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use std::time::{Duration, SystemTime};

/// How long a signature in a query is valid: it is sent at once.
const VALID_SECS: u64 = 60;

/// Whose signature, and for what.
pub(crate) struct Signing<'a> {
    pub(crate) access_key_id: &'a str,
    pub(crate) secret_access_key: &'a SecretString,
    pub(crate) session_token: Option<&'a SecretString>,
    pub(crate) region: &'a str,
    pub(crate) service: &'a str,
    pub(crate) signature: SignatureIn,
}

/// The request cannot be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request cannot be signed: a header of it is not text")]
pub(crate) struct Unsignable;

impl Signing<'_> {
    fn settings(&self) -> SigningSettings {
        let mut settings = SigningSettings::default();
        // S3 takes paths as they are and wants the digest of the body as a header; all others encode twice.
        if self.service == "s3" {
            settings.percent_encoding_mode = PercentEncodingMode::Single;
            settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
            settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        }
        if self.signature == SignatureIn::Query {
            settings.signature_location = SignatureLocation::QueryParams;
            settings.expires_in = Some(Duration::from_secs(VALID_SECS));
        }
        settings
    }

    /// Signs a request. Gives the signature: whoever has it can repeat the request for a while.
    pub(crate) fn apply(&self, draft: &mut Draft, at: SystemTime) -> Result<String, Unsignable> {
        self.apply_with(draft, at, self.settings())
    }

    fn apply_with(&self, draft: &mut Draft, at: SystemTime, settings: SigningSettings) -> Result<String, Unsignable> {
        let token = self.session_token.map(|token| token.expose_secret().to_owned());
        let identity = Credentials::new(self.access_key_id, self.secret_access_key.expose_secret(), token, None, "writ").into();
        let params = SigningParams::builder()
            .identity(&identity)
            .region(self.region)
            .name(self.service)
            .time(at)
            .settings(settings)
            .build()
            .map_err(|_| Unsignable)?;
        let url = draft.url();
        let host = [("host", draft.authority.as_str())].into_iter().filter(|_| !draft.headers.contains_key("host"));
        let others = draft.headers.iter().map(|(name, value)| value.to_str().map(|value| (name.as_str(), value)));
        let headers = others.collect::<Result<Vec<_>, _>>().map_err(|_| Unsignable)?;
        // S3 takes a signature in the query for one of whatever body comes with it, since it has no place for its digest.
        let unsigned = self.service == "s3" && self.signature == SignatureIn::Query;
        let body = if unsigned { SignableBody::UnsignedPayload } else { SignableBody::Bytes(&draft.body) };
        let request = SignableRequest::new(draft.method.as_str(), &url, host.chain(headers), body);
        let signed = sign(request.map_err(|_| Unsignable)?, &params.into()).map_err(|_| Unsignable)?;
        let (instructions, signature) = signed.into_parts();
        let (headers, query) = instructions.into_parts();
        for header in headers {
            let mut value = HeaderValue::from_str(header.value()).map_err(|_| Unsignable)?;
            value.set_sensitive(header.sensitive());
            draft.headers.insert(HeaderName::from_static(header.name()), value);
        }
        for (name, value) in query {
            super::request::push_field(&mut draft.query, name, &value);
        }
        Ok(signature)
    }
}

#[cfg(test)]
mod tests;
