//! The table that is printed at the end.

use std::time::Duration;

/// Measurements, ours beside the peer's.
#[derive(Default)]
pub struct Table {
    rows: Vec<Row>,
}

struct Row {
    what: String,
    peer: Option<Value>,
    ours: Value,
    budget: &'static str,
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

impl Table {
    /// Adds a row; `budget` is what DESIGN allows us.
    pub fn add(&mut self, what: &str, peer: Option<Value>, ours: Value, budget: &'static str) {
        self.rows.push(Row { what: what.to_owned(), peer, ours, budget });
    }

    pub fn print(&self) {
        println!("| what | dockerd 20.10 | Minke | ratio | budget |");
        println!("|---|---:|---:|---:|---|");
        for row in &self.rows {
            let peer = row.peer.map(Value::text).unwrap_or_else(|| "–".to_owned());
            let ratio = row.peer.map_or_else(
                || "–".to_owned(),
                |peer| format!("{:.2}", row.ours.number() / peer.number().max(f64::MIN_POSITIVE)),
            );
            println!("| {} | {peer} | {} | {ratio} | {} |", row.what, row.ours.text(), row.budget);
        }
    }
}
