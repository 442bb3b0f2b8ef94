//! Query strings of the plain endpoints, and values inside OData texts.

/// Most pairs of a query string that are read.
const MAX_PAIRS: usize = 256;

/// The pairs of a query string or form, decoded, in order.
pub(crate) fn pairs(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|part| !part.is_empty())
        .take(MAX_PAIRS)
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (decode(name), decode(value))
        })
        .collect()
}

/// The first value of `name`.
pub(crate) fn value(query: Option<&str>, name: &str) -> Option<String> {
    pairs(query?).into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let pair = bytes.get(at + 1..at + 3).and_then(|pair| str::from_utf8(pair).ok());
        match (bytes[at], pair.and_then(|pair| u8::from_str_radix(pair, 16).ok())) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                at += 2;
            }
            (b'+', _) => decoded.push(b' '),
            (byte, _) => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// A text as an OData literal that can be put into a query whatever it holds.
pub fn literal(text: &str) -> String {
    let mut literal = String::from("'");
    for byte in text.replace('\'', "''").bytes() {
        if byte.is_ascii_alphanumeric() {
            literal.push(byte as char);
        } else {
            literal.push_str(&format!("%{byte:02X}"));
        }
    }
    literal.push('\'');
    literal
}

#[cfg(test)]
mod tests {
    use super::*;
    use minke_common_odata::{Expr, Literal};

    #[test]
    fn pairs_are_decoded() {
        assert_eq!(
            pairs("scope=a%3Ab&scope=c+d&&x=%zz&y"),
            [("scope", "a:b"), ("scope", "c d"), ("x", "%zz"), ("y", "")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
        assert_eq!(value(Some("a=1&apikey=k%26"), "apikey").as_deref(), Some("k&"));
    }

    #[test]
    fn a_literal_is_read_as_the_text_it_was_made_of() {
        for text in ["", "it's", "a&b=c;d?e#f%20g+h", "ä\n'or 1 eq 1", "')"] {
            let query = format!("device?$filter=uuid eq {}", literal(text));
            let request = minke_common_odata::parse(&query).unwrap();
            let Some(Expr::Binary { right, .. }) = request.options.filter else { panic!() };
            assert_eq!(*right, Expr::Literal(Literal::Text(text.to_owned())));
        }
    }
}
