//! Sizes as people write them: `64m`, `1.5gb`, `4096`.

/// The bytes that a size says; `None` if it is none. `k`, `m` and `g` are powers of 1024, as Docker's.
pub fn bytes(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: f64 = match &lower[digits.len()..] {
        "" | "b" => 1.0,
        "k" | "kb" => 1024.0,
        "m" | "mb" => 1024.0 * 1024.0,
        "g" | "gb" => 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    let size: f64 = digits.trim().parse().ok()?;
    (size >= 0.0 && digits.starts_with(|c: char| c.is_ascii_digit()))
        .then_some((size * factor) as u64)
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_are_read_as_docker_reads_them() {
        for (text, wanted) in [
            ("4096", Some(4096)),
            ("64m", Some(64 << 20)),
            ("1.5GB", Some(3 << 29)),
            (" 2kb ", Some(2048)),
            ("7b", Some(7)),
            ("", None),
            ("m", None),
            ("-1k", None),
            ("inf", None),
            ("5tb", None),
        ] {
            assert_eq!(bytes(text), wanted, "{text:?}");
        }
    }
}
