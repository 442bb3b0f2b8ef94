//! The last lines of a push that went well.

use crate::service::Built;

/// The mascot.
pub(crate) const WHALE: &str = r"
                 .  .
                  \/
       __________ ||          ___
     ,'          `--.___     /  /
    /  o                `---'  /
   (___                    __  \
       `--._____________,-'  \__\
  ~ ~~ ~~~ ~ ~~~~ ~~ ~ ~~~ ~~ ~ ~~~~ ~
";

/// Bytes for people.
pub(crate) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB"] {
        if value < 1000.0 {
            return match unit {
                "B" => format!("{bytes} B"),
                _ => format!("{value:.1} {unit}"),
            };
        }
        value /= 1000.0;
    }
    format!("{value:.2} GB")
}

/// A table of services, sizes, steps and times.
pub(crate) fn table(built: &[(String, Built)]) -> Vec<String> {
    let head = ["Service", "Image size", "Steps (cached)", "Build time"].map(str::to_owned);
    let mut rows = vec![head];
    for (name, built) in built {
        let (cached, steps) = built.cached;
        let steps = if steps == 0 { "-".to_owned() } else { format!("{steps} ({cached})") };
        let time = format!("{:.1} s", built.build_time.as_secs_f64());
        rows.push([name.clone(), size(built.size), steps, time]);
    }
    let widths: Vec<usize> =
        (0..4).map(|i| rows.iter().map(|r| r[i].chars().count()).max().unwrap_or(0)).collect();
    let rule = |left: &str, middle: &str, right: &str| {
        let cells: Vec<String> = widths.iter().map(|w| "─".repeat(w + 2)).collect();
        format!("{left}{}{right}", cells.join(middle))
    };
    let mut out = vec![rule("┌", "┬", "┐")];
    for (nth, row) in rows.iter().enumerate() {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!(" {cell:<width$} ")).collect();
        out.push(format!("│{}│", cells.join("│")));
        if nth == 0 {
            out.push(rule("├", "┼", "┤"));
        }
    }
    out.push(rule("└", "┴", "┘"));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_table_lines_up() {
        let built = Built {
            digest: String::new(),
            size: 4_321_000,
            log: String::new(),
            dockerfile: None,
            project_type: "",
            build_time: Duration::from_millis(1260),
            push_timestamp: 0,
            cached: (2, 5),
        };
        let lines = table(&[("api".into(), built)]);
        assert_eq!(lines[1], "│ Service │ Image size │ Steps (cached) │ Build time │");
        assert_eq!(lines[3], "│ api     │ 4.3 MB     │ 5 (2)          │ 1.3 s      │");
        let widths: Vec<usize> = lines.iter().map(|l| l.chars().count()).collect();
        assert!(widths.iter().all(|w| *w == widths[0]));
        assert_eq!([size(999), size(1500), size(2_000_000_000)], ["999 B", "1.5 kB", "2.00 GB"]);
    }
}
