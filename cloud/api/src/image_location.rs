//! Places of images: rows hold the path `v2/<hex>`; clients see and send it behind the server's name.

use minke_common_odata::{Expr, Literal, Options, Request};
use serde_json::{Map, Value};

const FIELD: &str = "is_stored_at__image_location";

/// The path in a location, with or without a host before it and a digest behind it; `None` if it is
/// not one of ours.
pub(crate) fn path(location: &str) -> Option<&str> {
    let name = location.split_once('@').map_or(location, |(name, _)| name);
    let path = match name.find("/v2/") {
        Some(slash) => &name[slash + 1..],
        None => name,
    };
    let hex = path.strip_prefix("v2/")?;
    let is_hex =
        hex.len() == 32 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    is_hex.then_some(path)
}

/// Puts `host` before every location in an answer.
pub(crate) fn add_host(answer: &mut Value, host: &str) {
    match answer {
        Value::Array(items) => items.iter_mut().for_each(|item| add_host(item, host)),
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if name == FIELD && text.starts_with("v2/") => {
                        *text = format!("{host}/{text}");
                    }
                    _ => add_host(value, host),
                }
            }
        }
        _ => {}
    }
}

/// Takes the host off a location in a row that a client sends.
pub(crate) fn strip_host(body: &mut Map<String, Value>) {
    if let Some(Value::String(text)) = body.get_mut(FIELD)
        && let Some(path) = path(text)
    {
        *text = path.to_owned();
    }
}

/// Takes the host off every location that a request compares with.
pub(crate) fn strip_request(request: &mut Request) {
    use minke_common_odata::{Key, KeyValue};
    match &mut request.key {
        Some(Key::Id(KeyValue::Literal(literal))) => strip_literal(literal),
        Some(Key::Named(parts)) => {
            for (_, value) in parts {
                if let KeyValue::Literal(literal) = value {
                    strip_literal(literal);
                }
            }
        }
        _ => {}
    }
    strip_options(&mut request.options);
}

fn strip_options(options: &mut Options) {
    if let Some(filter) = &mut options.filter {
        strip_expr(filter);
    }
    options.aliases.iter_mut().for_each(|(_, literal)| strip_literal(literal));
    options.expand.iter_mut().for_each(|expand| strip_options(&mut expand.options));
}

fn strip_literal(literal: &mut Literal) {
    if let Literal::Text(text) = literal
        && !text.starts_with("v2/")
        && let Some(path) = path(text)
    {
        *text = path.to_owned();
    }
}

fn strip_expr(expr: &mut Expr) {
    match expr {
        Expr::Literal(literal) => strip_literal(literal),
        Expr::Path(_) | Expr::Parameter(_) => {}
        Expr::Count { filter, .. } => filter.iter_mut().for_each(|filter| strip_expr(filter)),
        Expr::Not(inner) | Expr::Negate(inner) => strip_expr(inner),
        Expr::Binary { left, right, .. } => {
            strip_expr(left);
            strip_expr(right);
        }
        Expr::In { value, list } => {
            strip_expr(value);
            list.iter_mut().for_each(strip_expr);
        }
        Expr::Call { arguments, .. } => arguments.iter_mut().for_each(strip_expr),
        Expr::Lambda { body, .. } => body.iter_mut().for_each(|(_, body)| strip_expr(body)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const HEX: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn only_our_own_places_are_places() {
        let path_only = format!("v2/{HEX}");
        for good in [path_only.clone(), format!("h:1/v2/{HEX}"), format!("h/v2/{HEX}@sha256:00")] {
            assert_eq!(path(&good), Some(path_only.as_str()));
        }
        for bad in ["", "v2/", "library/busybox", "h/v2/ABC", &format!("h/v2/{HEX}/x")] {
            assert_eq!(path(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_host_is_on_the_wire_and_never_in_a_row() {
        let mut answer =
            json!({"d": [{"a": {FIELD: format!("v2/{HEX}")}, "b": format!("v2/{HEX}")}]});
        add_host(&mut answer, "h:1");
        assert_eq!(answer["d"][0]["a"][FIELD], format!("h:1/v2/{HEX}"));
        assert_eq!(answer["d"][0]["b"], format!("v2/{HEX}"));

        let text = format!("image?$filter=x/any(i:i/{FIELD} eq 'old.example/v2/{HEX}')");
        let mut request = minke_common_odata::parse(&text).unwrap();
        strip_request(&mut request);
        let expected = text.replace("old.example/", "");
        assert_eq!(request, minke_common_odata::parse(&expected).unwrap());
    }
}
