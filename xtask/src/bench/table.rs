//! The table of what was measured, and its plot.

use std::fmt::Write as _;
use std::time::Duration;

/// The peers, in the order of the columns.
pub const PEERS: [&str; 2] = ["dockerd 20.10", "podman 4.3"];

/// Measurements, ours beside the peers'.
#[derive(Default)]
pub struct Table {
    rows: Vec<Row>,
}

struct Row {
    what: String,
    peers: [Option<Value>; 2],
    ours: Value,
    budget: Option<Budget>,
}

/// A measured value.
#[derive(Clone, Copy)]
pub enum Value {
    Time(Duration),
    Kib(u64),
}

impl Value {
    fn number(self) -> f64 {
        match self {
            Value::Time(time) => time.as_secs_f64(),
            Value::Kib(kib) => kib as f64,
        }
    }

    fn text(self) -> String {
        match self {
            Value::Time(time) if time.as_millis() >= 10_000 => {
                format!("{:.1} s", time.as_secs_f64())
            }
            Value::Time(time) => format!("{:.1} ms", time.as_secs_f64() * 1000.0),
            Value::Kib(kib) => format!("{:.1} MiB", kib as f64 / 1024.0),
        }
    }
}

/// The most that DESIGN allows us.
#[derive(Clone, Copy)]
pub enum Budget {
    Milliseconds(u64),
    Seconds(u64),
    /// Of a million bytes.
    Megabytes(f64),
}

impl Budget {
    /// The number of a [`Value`] that just meets it.
    fn number(self) -> f64 {
        match self {
            Budget::Milliseconds(most) => Value::Time(Duration::from_millis(most)).number(),
            Budget::Seconds(most) => Value::Time(Duration::from_secs(most)).number(),
            Budget::Megabytes(most) => most * 1e6 / 1024.0,
        }
    }

    /// What it is, and whether this meets it.
    fn judge(self, ours: Value) -> String {
        let most = match self {
            Budget::Milliseconds(most) => format!("{most} ms"),
            Budget::Seconds(most) => format!("{most} s"),
            Budget::Megabytes(most) => format!("{most} MB"),
        };
        let is_met = ours.number() <= self.number();
        format!("≤ {most}: {}", if is_met { "met" } else { "**missed**" })
    }
}

impl Table {
    /// Adds a row of ours alone.
    pub fn add(&mut self, what: &str, ours: Value, budget: Option<Budget>) {
        self.compare(what, &[], ours, budget);
    }

    /// Adds a row of ours and the peers'.
    pub fn compare(
        &mut self,
        what: &str,
        values: &[Option<Value>],
        ours: Value,
        budget: Option<Budget>,
    ) {
        let peers = [0, 1].map(|place| values.get(place).copied().flatten());
        self.rows.push(Row { what: what.to_owned(), peers, ours, budget });
    }

    /// As Markdown.
    pub fn text(&self) -> String {
        let mut text = format!(
            "| what | {} | {} | Minke | Minke : dockerd | budget |\n|---|---:|---:|---:|---:|---|\n",
            PEERS[0], PEERS[1]
        );
        for row in &self.rows {
            let peer = |place: usize| row.peers[place].map_or("–".to_owned(), Value::text);
            let ratio = row.peers[0].map_or_else(
                || "–".to_owned(),
                |peer| format!("{:.2}", row.ours.number() / peer.number().max(f64::MIN_POSITIVE)),
            );
            let budget = row.budget.map_or_else(String::new, |budget| budget.judge(row.ours));
            let (what, ours) = (&row.what, row.ours.text());
            let _ = writeln!(
                text,
                "| {what} | {} | {} | {ours} | {ratio} | {budget} |",
                peer(0),
                peer(1)
            );
        }
        text
    }

    /// As bars: each engine relative to dockerd.
    pub fn plot(&self) -> String {
        const LEFT: usize = 330;
        const FULL: f64 = 360.0;
        const BAR: usize = 11;
        const COLOURS: [&str; 3] = ["#b0b7c3", "#c9a86a", "#2f7d6b"];
        let rows: Vec<&Row> = self.rows.iter().filter(|row| row.peers[0].is_some()).collect();
        let step = 3 * BAR + 14;
        let height = 60 + rows.len() * step;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"800\" height=\"{height}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
        );
        for (place, (name, colour)) in PEERS.iter().chain(&["Minke"]).zip(COLOURS).enumerate() {
            let x = LEFT + place * 130;
            let _ = writeln!(
                svg,
                "<rect x=\"{x}\" y=\"14\" width=\"12\" height=\"12\" fill=\"{colour}\"/>\
                 <text x=\"{}\" y=\"24\">{name}</text>",
                x + 17
            );
        }
        let widest = rows
            .iter()
            .flat_map(|row| {
                let base = row.peers[0].map_or(1.0, Value::number).max(f64::MIN_POSITIVE);
                [row.peers[1], Some(row.ours)].into_iter().flatten().map(move |v| v.number() / base)
            })
            .fold(1.0_f64, f64::max)
            .min(2.0);
        for (index, row) in rows.iter().enumerate() {
            let top = 44 + index * step;
            let base = row.peers[0].map_or(1.0, Value::number).max(f64::MIN_POSITIVE);
            let what = row.what.replace('&', "&amp;").replace('<', "&lt;");
            let _ = writeln!(
                svg,
                "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{what}</text>",
                LEFT - 10,
                top + 2 * BAR
            );
            let values = [row.peers[0], row.peers[1], Some(row.ours)];
            for (bar, (value, colour)) in values.into_iter().zip(COLOURS).enumerate() {
                let Some(value) = value else { continue };
                let width = (value.number() / base).min(widest) / widest * FULL;
                let y = top + bar * BAR;
                let _ = writeln!(
                    svg,
                    "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{:.1}\" height=\"{}\" fill=\"{colour}\"/>\
                     <text x=\"{:.1}\" y=\"{}\" font-size=\"9\">{}</text>",
                    width.max(1.0),
                    BAR - 1,
                    LEFT as f64 + width.max(1.0) + 4.0,
                    y + BAR - 3,
                    value.text()
                );
            }
        }
        svg.push_str("</svg>\n");
        svg
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_budget_says_whether_it_is_met() {
        let mut table = Table::default();
        let time = |millis| Value::Time(Duration::from_millis(millis));
        table.compare("start", &[Some(time(100)), None], time(50), Some(Budget::Milliseconds(50)));
        table.add("push", time(5001), Some(Budget::Seconds(5)));
        // 10 MB are 9765.6 KiB.
        table.add("engine", Value::Kib(9765), Some(Budget::Megabytes(10.0)));
        table.add("agent", Value::Kib(9766), Some(Budget::Megabytes(10.0)));
        table.add("pack", time(1), None);
        let text = table.text();
        let rows: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(
            rows,
            [
                "| start | 100.0 ms | – | 50.0 ms | 0.50 | ≤ 50 ms: met |",
                "| push | – | – | 5001.0 ms | – | ≤ 5 s: **missed** |",
                "| engine | – | – | 9.5 MiB | – | ≤ 10 MB: met |",
                "| agent | – | – | 9.5 MiB | – | ≤ 10 MB: **missed** |",
                "| pack | – | – | 1.0 ms | – |  |",
            ]
        );
    }
}
