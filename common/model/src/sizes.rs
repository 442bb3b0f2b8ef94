//! Sizes as people write them: `64m`, `1.5gb`, `4096`.

/// The bytes that a size says; `None` if it is none, or more than fits. `k` to `p` are powers of 1024,
/// with or without `b` or `ib`, as Docker's.
pub fn bytes(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let end = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(end);
    let shift = match unit.trim_start() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return None,
    };
    let factor = 1u64 << shift;
    // Whole numbers stay exact.
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor);
    }
    let bytes = number.parse::<f64>().ok()? * factor as f64;
    (bytes < u64::MAX as f64).then_some(bytes as u64)
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
            ("1.5kB", Some(1536)),
            (" 2kb ", Some(2048)),
            ("3 MiB", Some(3 << 20)),
            ("5tb", Some(5 << 40)),
            ("2p", Some(2 << 50)),
            ("7b", Some(7)),
            ("9007199254740993", Some((1 << 53) + 1)),
            ("16383p", Some(16383 << 50)),
            ("16384p", None),
            ("99999999999999999999999", None),
            ("", None),
            ("m", None),
            (".", None),
            ("-1k", None),
            ("inf", None),
            ("1e3", None),
            ("5q", None),
            ("5 k b", None),
        ] {
            assert_eq!(bytes(text), wanted, "{text:?}");
        }
    }
}
