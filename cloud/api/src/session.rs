//! Sessions of people: a signed token that clients read and send back.

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::error::ApiError;

/// How long a session lasts without being refreshed, in seconds.
pub const LIFETIME: i64 = 7 * 24 * 60 * 60;
/// How long after the password was given a session may do what needs it, in milliseconds.
pub const SUDO_WINDOW: i64 = 20 * 60 * 1000;

/// What a session's token says. Clients read it, so the names are theirs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The user's row.
    pub id: i64,
    /// The user's secret when the session began; another one by now ends the session.
    pub jwt_secret: String,
    /// When the password was last given, in milliseconds since the epoch.
    #[serde(rename = "authTime")]
    pub auth_time: i64,
    /// When the token was made, in seconds since the epoch.
    pub iat: i64,
    /// When it ends, in seconds since the epoch.
    pub exp: i64,
}

/// Makes and checks the tokens.
pub(crate) struct Sessions {
    encode: EncodingKey,
    decode: DecodingKey,
    validation: Validation,
}

impl Sessions {
    pub(crate) fn new(secret: &[u8]) -> Sessions {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_required_spec_claims(&["exp"]);
        Sessions {
            encode: EncodingKey::from_secret(secret),
            decode: DecodingKey::from_secret(secret),
            validation,
        }
    }

    pub(crate) fn sign(&self, claims: &Claims) -> Result<String, ApiError> {
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &self.encode)
            .map_err(|error| ApiError::internal("signing a session", error))
    }

    /// What the token says; `None` if it is forged or over.
    pub(crate) fn verify(&self, token: &str) -> Option<Claims> {
        jsonwebtoken::decode(token, &self.decode, &self.validation).ok().map(|data| data.claims)
    }
}

/// Whether a text has the form of a session's token, not of an API key.
pub(crate) fn is_token(text: &str) -> bool {
    text.starts_with("ey") && text.bytes().filter(|byte| *byte == b'.').count() == 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_and_cannot_be_forged() {
        let sessions = Sessions::new(b"secret");
        let now = jiff::Timestamp::now().as_second();
        let claims =
            Claims { id: 1, jwt_secret: "s".to_owned(), auth_time: 5, iat: now, exp: now + 60 };
        let token = sessions.sign(&claims).unwrap();
        assert!(is_token(&token) && !is_token("abcdef"));
        assert_eq!(sessions.verify(&token), Some(claims.clone()));
        assert_eq!(Sessions::new(b"other").verify(&token), None);
        let over = sessions.sign(&Claims { exp: now - 3600, ..claims }).unwrap();
        assert_eq!(sessions.verify(&over), None);
        let unsigned = "eyJhbGciOiJub25lIn0.eyJpZCI6MX0.";
        assert_eq!(sessions.verify(unsigned), None);
    }
}
