//! The law of twins: whatever is asked, SQLite and PostgreSQL give equal rows in equal order, or the
//! same error. Requests are generated from the model, well and badly typed, over rows chosen to hurt:
//! nulls, texts that differ in case or sort by language, dates before 1970.

mod support;

use std::cell::Cell;

use minke_cloud_db::model::{Kind, Member, Resource};
use minke_cloud_db::{Caller, Db, Model};
use minke_cloud_fleet::Role;
use minke_common_odata::{
    Binary, Expand, Expr, Function, Literal, Options, OrderBy, Path, Quantifier, Request,
};
use proptest::collection::vec;
use proptest::prelude::any;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;
use support::{Twins, fill, post, said};

/// Texts that engines and languages sort and fold in different ways.
const TEXTS: [&str; 12] =
    ["", "a", "A", "b", "B", "ab", "aB", "ä", "z", "Zebra", "a_b%", "mock-device"];

const TIMES: [&str; 4] = [
    "1969-12-31T23:59:59.999Z",
    "2026-11-14T01:41:16.638Z",
    "2000-02-29T12:34:56.789Z",
    "9999-12-30T22:00:00.999Z",
];

/// Choices drawn from a list of bytes, so that a failing request shrinks with its list.
struct Choices<'b>(std::slice::Iter<'b, u8>);

impl Choices<'_> {
    fn below(&mut self, limit: usize) -> usize {
        let byte = |this: &mut Self| this.0.next().copied().map_or(0, usize::from);
        (byte(self) << 8 | byte(self)) % limit.max(1)
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == times - 1
    }
}

const RESOURCES: [&str; 14] = [
    "device",
    "application",
    "release",
    "image_install",
    "device_tag",
    "service",
    "release_image",
    "device_type",
    "organization",
    "user",
    "service_install",
    "image",
    "device_environment_variable",
    "api_key",
];

struct Row<'s> {
    resource: &'static Resource,
    prefix: Option<&'s str>,
}

fn fields_of(resource: &Resource, wanted: &[Kind]) -> Vec<String> {
    let fields = resource.fields.iter().filter(|f| wanted.contains(&f.kind));
    fields.map(|f| f.name.clone()).collect()
}

fn path(row: &Row<'_>, names: Vec<String>) -> Expr {
    let prefix = row.prefix.map(str::to_owned);
    Expr::Path(Path(prefix.into_iter().chain(names).collect()))
}

/// A field of the row, or of a row that it points to.
fn field(choices: &mut Choices<'_>, row: &Row<'_>, wanted: &[Kind]) -> Option<Expr> {
    let links = &row.resource.links;
    if !links.is_empty() && choices.once_in(4) {
        let link = &links[choices.below(links.len())];
        let target = Model::get().at(link.to);
        let fields = fields_of(target, wanted);
        let name = fields.get(choices.below(fields.len()))?.clone();
        return Some(path(row, vec![link.name.clone(), name]));
    }
    let fields = fields_of(row.resource, wanted);
    fields.get(choices.below(fields.len())).map(|name| path(row, vec![name.clone()]))
}

fn literal(choices: &mut Choices<'_>, kind: Kind) -> Expr {
    if choices.once_in(8) {
        return Expr::Literal(Literal::Null);
    }
    Expr::Literal(match kind {
        Kind::Boolean => Literal::Boolean(choices.once_in(2)),
        Kind::Text => Literal::Text(choices.pick(&TEXTS).to_owned()),
        Kind::DateTime => Literal::DateTime(choices.pick(&TIMES).to_owned()),
        Kind::Real => Literal::Real(choices.pick(&[0.5, -1.5, 1e9])),
        _ => Literal::Integer(choices.pick(&[0, 1, -3, 50, 201, 301, 401, i64::MAX, i64::MIN])),
    })
}

fn call(function: Function, arguments: Vec<Expr>) -> Expr {
    Expr::Call { function, arguments }
}

fn binary(op: Binary, left: Expr, right: Expr) -> Expr {
    Expr::Binary { op, left: Box::new(left), right: Box::new(right) }
}

fn text(choices: &mut Choices<'_>, row: &Row<'_>, depth: usize) -> Expr {
    use Function as F;
    if depth == 0 || choices.once_in(3) {
        return match choices.once_in(3) {
            true => Expr::Literal(Literal::Text(choices.pick(&TEXTS).to_owned())),
            false => field(choices, row, &[Kind::Text])
                .unwrap_or_else(|| Expr::Literal(Literal::Text("a".to_owned()))),
        };
    }
    let inner = text(choices, row, depth - 1);
    let number = |n: i64| Expr::Literal(Literal::Integer(n));
    match choices.below(6) {
        0 => call(F::ToLower, vec![inner]),
        1 => call(F::ToUpper, vec![inner]),
        2 => call(F::Trim, vec![inner]),
        3 => call(F::Concat, vec![inner, text(choices, row, depth - 1)]),
        4 => call(F::Substring, vec![inner, number(choices.pick(&[0, 1, 3])), number(2)]),
        _ => {
            let from = text(choices, row, 0);
            call(F::Replace, vec![inner, from, Expr::Literal(Literal::Text("x".to_owned()))])
        }
    }
}

fn number(choices: &mut Choices<'_>, row: &Row<'_>, depth: usize) -> Expr {
    use Function as F;
    if depth == 0 || choices.once_in(3) {
        let kinds = [Kind::Integer, Kind::BigInteger];
        return match choices.once_in(3) {
            true => Expr::Literal(Literal::Integer(choices.pick(&[0, 1, 2, -3, 50, 1000]))),
            false => field(choices, row, &kinds).unwrap_or(Expr::Literal(Literal::Integer(1))),
        };
    }
    match choices.below(6) {
        0 => call(F::Length, vec![text(choices, row, depth - 1)]),
        1 => call(F::IndexOf, vec![text(choices, row, depth - 1), text(choices, row, 0)]),
        2 => {
            let part = choices.pick(&[
                F::Year,
                F::Month,
                F::Day,
                F::Hour,
                F::Minute,
                F::Second,
                F::FractionalSeconds,
                F::Date,
                F::Time,
            ]);
            let time = field(choices, row, &[Kind::DateTime]);
            call(part, vec![time.unwrap_or_else(|| literal(choices, Kind::DateTime))])
        }
        3 => {
            let round = choices.pick(&[F::Round, F::Floor, F::Ceiling]);
            call(round, vec![number(choices, row, depth - 1)])
        }
        4 => Expr::Negate(Box::new(number(choices, row, depth - 1))),
        _ => {
            let ops = [Binary::Add, Binary::Sub, Binary::Mul, Binary::Div, Binary::Mod];
            let left = number(choices, row, depth - 1);
            binary(choices.pick(&ops), left, number(choices, row, depth - 1))
        }
    }
}

fn comparison(choices: &mut Choices<'_>) -> Binary {
    choices.pick(&[Binary::Eq, Binary::Ne, Binary::Gt, Binary::Ge, Binary::Lt, Binary::Le])
}

fn condition(choices: &mut Choices<'_>, row: &Row<'_>, depth: usize) -> Expr {
    if depth > 0 && choices.once_in(3) {
        let left = condition(choices, row, depth - 1);
        return match choices.below(3) {
            0 => Expr::Not(Box::new(left)),
            1 => binary(Binary::And, left, condition(choices, row, depth - 1)),
            _ => binary(Binary::Or, left, condition(choices, row, depth - 1)),
        };
    }
    if depth > 0 && choices.once_in(4) {
        return lambda(choices, row, depth - 1);
    }
    use Function as F;
    match choices.below(8) {
        0 => {
            let search = choices.pick(&[F::StartsWith, F::EndsWith, F::Contains, F::SubstringOf]);
            call(search, vec![text(choices, row, 1), text(choices, row, 1)])
        }
        1 => binary(comparison(choices), text(choices, row, 2), text(choices, row, 1)),
        2 => binary(comparison(choices), number(choices, row, 2), number(choices, row, 1)),
        3 => field(choices, row, &[Kind::Boolean]).unwrap_or(Expr::Literal(Literal::Boolean(true))),
        4 => {
            let time = field(choices, row, &[Kind::DateTime]);
            let time = time.unwrap_or_else(|| literal(choices, Kind::DateTime));
            binary(comparison(choices), time, literal(choices, Kind::DateTime))
        }
        5 => {
            let value = field(choices, row, &[Kind::Text]);
            let value = value.unwrap_or_else(|| literal(choices, Kind::Text));
            let list = (0..1 + choices.below(3)).map(|_| literal(choices, Kind::Text)).collect();
            Expr::In { value: Box::new(value), list }
        }
        6 => {
            let any = [Kind::Text, Kind::Boolean, Kind::DateTime, Kind::Integer, Kind::Json];
            let value = field(choices, row, &any);
            let value = value.unwrap_or_else(|| literal(choices, Kind::Integer));
            binary(choices.pick(&[Binary::Eq, Binary::Ne]), value, Expr::Literal(Literal::Null))
        }
        // Types are left to chance here: most of these are refused, by both in the same words.
        _ => {
            let any = [Kind::Text, Kind::Boolean, Kind::DateTime, Kind::Integer, Kind::Version];
            let value = field(choices, row, &any);
            let kind = choices.pick(&any);
            let value = value.unwrap_or_else(|| literal(choices, kind));
            binary(comparison(choices), value, literal(choices, kind))
        }
    }
}

/// Names of all navigations with the resources they lead to.
fn navigations(resource: &'static Resource) -> Vec<(String, &'static Resource)> {
    let links = resource.links.iter().map(|l| (l.name.clone(), Model::get().at(l.to)));
    let back = resource.reverse.iter().map(|r| (r.names[0].clone(), Model::get().at(r.from)));
    links.chain(back).collect()
}

fn lambda(choices: &mut Choices<'_>, row: &Row<'_>, depth: usize) -> Expr {
    let all = navigations(row.resource);
    if all.is_empty() {
        return Expr::Literal(Literal::Boolean(true));
    }
    let (name, target) = &all[choices.below(all.len())];
    let prefix = row.prefix.map(str::to_owned);
    let path = Path(prefix.into_iter().chain([name.clone()]).collect());
    if choices.once_in(4) {
        let filter = choices
            .once_in(2)
            .then(|| Box::new(condition(choices, &Row { resource: target, prefix: None }, 0)));
        let count = Expr::Count { path, filter };
        return binary(comparison(choices), count, Expr::Literal(Literal::Integer(1)));
    }
    let variable = format!("v{depth}");
    let inner = Row { resource: target, prefix: Some(&variable) };
    let body = condition(choices, &inner, depth);
    let quantifier = choices.pick(&[Quantifier::Any, Quantifier::Any, Quantifier::All]);
    Expr::Lambda { path, quantifier, body: Some((variable.clone(), Box::new(body))) }
}

fn orderby(choices: &mut Choices<'_>, resource: &'static Resource) -> Vec<OrderBy> {
    let row = Row { resource, prefix: None };
    let any = [Kind::Text, Kind::Boolean, Kind::DateTime, Kind::Integer, Kind::Real];
    (0..choices.below(3))
        .filter_map(|_| {
            let by = field(choices, &row, &any)?;
            Some(OrderBy { by, descending: choices.once_in(2) })
        })
        .collect()
}

fn options(choices: &mut Choices<'_>, resource: &'static Resource, depth: usize) -> Options {
    let row = Row { resource, prefix: None };
    let mut options = Options::default();
    if choices.once_in(2) {
        options.filter = Some(condition(choices, &row, 2));
    }
    for _ in 0..choices.below(4) {
        let name = &resource.fields[choices.below(resource.fields.len())].name;
        options.select.push(name.clone());
    }
    options.orderby = orderby(choices, resource);
    if choices.once_in(4) {
        options.top = Some(choices.below(4) as u64);
    }
    if choices.once_in(4) {
        options.skip = Some(choices.below(3) as u64);
    }
    let all = navigations(resource);
    for _ in 0..if depth > 0 && !all.is_empty() { choices.below(3) } else { 0 } {
        let (name, target) = &all[choices.below(all.len())];
        let known = options.expand.iter().any(|e| e.navigation == *name);
        let field = matches!(resource.member(name), Some(Member::Field(_)));
        if !known && !field {
            let count = choices.once_in(5);
            let mut inner = self::options(choices, target, depth - 1);
            if count {
                inner = Options { filter: inner.filter, ..Options::default() };
            }
            options.expand.push(Expand { navigation: name.clone(), count, options: inner });
        }
    }
    options
}

fn request(bytes: &[u8]) -> (usize, Request) {
    let mut choices = Choices(bytes.iter());
    let caller = choices.below(5);
    let name = choices.pick(&RESOURCES);
    let resource = Model::get().resource(name).expect("a resource");
    let count = choices.once_in(12);
    let options = options(&mut choices, resource, 2);
    (caller, Request { resource: name.to_owned(), count, options, ..Request::default() })
}

async fn more_rows(db: &Db) {
    for (at, text) in TEXTS.iter().enumerate() {
        let null = at % 3 == 0;
        let time = TIMES[at % TIMES.len()];
        let body = json!({
            "uuid": format!("{at:032x}"), "device_name": if text.is_empty() { "-" } else { text },
            "is_of__device_type": 51,
            "belongs_to__application": if at % 4 == 3 { json!(202) } else { json!(201) },
            "note": text, "status": if null { None } else { Some(text) },
            "os_version": if null { Some(text) } else { None },
            "cpu_usage": if null { None } else { Some(at as i64 - 4) },
            "last_vpn_event": if null { None } else { Some(time) },
            "is_online": at % 2 == 0, "provisioning_progress": if at == 5 { Some(7) } else { None },
            "heartbeat_expires_at": if at % 2 == 0 { Some(time) } else { None },
        });
        let device = post(db, "device", body).await.expect("a device").id;
        for key in &TEXTS[1..at % 4 + 1] {
            let tag = json!({"device": device, "tag_key": key, "value": text});
            post(db, "device_tag", tag).await.expect("a tag");
        }
        let release = json!({
            "belongs_to__application": 201, "commit": format!("commit{at}"), "composition": {},
            "status": if null { "success" } else { "failed" }, "source": "cloud",
            "semver": format!("{}.0.0-{}", at % 3, if null { "rc.1" } else { "x" }),
            "is_final": at % 2 == 0, "note": text, "start_timestamp": time, "variant": "",
        });
        post(db, "release", release).await.expect("a release");
    }
}

#[test]
fn generated_requests_have_equal_answers() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let twins = runtime.block_on(async {
        let twins = Twins::start().await;
        for (_, db) in twins.both() {
            fill(db).await;
            more_rows(db).await;
        }
        twins
    });
    let callers = [
        Caller::root(),
        Caller::root(),
        Caller::with_role(Some(11), Role::User),
        Caller::with_role(Some(13), Role::Device),
        Caller::anonymous(),
    ];
    let (rows, refused, asked) = (Cell::new(0_usize), Cell::new(0_usize), Cell::new(0_usize));
    // PROPTEST_CASES asks for more.
    let cases =
        if std::env::var_os("PROPTEST_CASES").is_some() { Config::default().cases } else { 600 };
    let mut runner =
        TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(cases) });
    let law = runner.run(&vec(any::<u8>(), 0..240), |bytes| {
        let (caller, request) = request(&bytes);
        let caller = &callers[caller];
        let (one, other) = runtime.block_on(async {
            (twins.sqlite.get(caller, &request).await, twins.postgres.get(caller, &request).await)
        });
        let fail = |error: &minke_cloud_db::Error| support::chain(error);
        for answer in [&one, &other] {
            if let Err(error) = answer {
                proptest::prop_assert!(error.status() < 500, "{}: {}", request, fail(error));
            }
        }
        let (one, other) = (one.map_err(said), other.map_err(said));
        asked.set(asked.get() + 1);
        match &one {
            Ok(answer) => rows.set(rows.get() + answer.as_array().map_or(1, Vec::len)),
            Err(_) => refused.set(refused.get() + 1),
        }
        proptest::prop_assert_eq!(one, other, "{}", request);
        Ok(())
    });
    let (rows, refused, asked) = (rows.get(), refused.get(), asked.get());
    law.unwrap_or_else(|fault| panic!("{fault}"));
    assert!(
        rows > asked && refused > 10 && refused < asked / 2,
        "{asked}: {rows} rows, {refused} refused"
    );
}
