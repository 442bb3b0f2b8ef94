//! Base64 as clients write it in headers and bodies.

use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD, STANDARD};

const LENIENT: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, NO_PAD.with_decode_allow_trailing_bits(true));

/// Writes the standard alphabet with padding.
pub(crate) fn encode(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Reads either alphabet, with or without padding, in one line or several.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let plain = |byte| match byte {
        b'-' => b'+',
        b'_' => b'/',
        other => other,
    };
    let digits = text.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n')).map(plain);
    let digits: Vec<u8> = digits.collect();
    let padding = digits.iter().rev().take_while(|byte| **byte == b'=').count();
    LENIENT.decode(&digits[..digits.len() - padding]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_alphabets_are_read() {
        let wanted = br#"{"username":"a?>"}"#;
        for text in [
            "eyJ1c2VybmFtZSI6ImE_PiJ9",
            "eyJ1c2VybmFtZSI6ImE/PiJ9",
            "eyJ1c2VybmFt\r\nZSI6ImE/PiJ9\n",
        ] {
            assert_eq!(decode(text).unwrap(), wanted);
        }
    }

    #[test]
    fn padding_may_be_left_out() {
        for text in ["YQ==", "YQ=", "YQ", "YR"] {
            assert_eq!(decode(text).unwrap(), b"a", "{text}");
        }
        assert_eq!(encode(b"a"), "YQ==");
    }

    #[test]
    fn other_text_is_refused() {
        for text in ["!", "Y=Q=", "Y Q"] {
            assert!(decode(text).is_none(), "{text}");
        }
    }
}
