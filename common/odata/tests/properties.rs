//! Laws of the parser: what is printed reads back the same, and no input makes it panic.

use minke_common_odata::{
    Binary, Expand, Expr, Function, Key, KeyValue, Literal, Options, OrderBy, Path, Quantifier,
    Request, parse, parse_filter,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn name() -> impl Strategy<Value = String> {
    "[a-z_][a-z0-9_]{0,12}".prop_filter("words of the grammar", |word| {
        let words = ["not", "in", "null", "true", "false", "datetime", "asc", "desc", "any", "all"];
        !words.contains(&word.as_str()) && Binary::ALL.iter().all(|(_, op)| op != word)
    })
}

fn literal() -> impl Strategy<Value = Literal> {
    prop_oneof![
        Just(Literal::Null),
        any::<bool>().prop_map(Literal::Boolean),
        any::<i64>().prop_map(Literal::Integer),
        (-1e300..1e300_f64).prop_map(Literal::Real),
        "\\PC{0,20}".prop_map(Literal::Text),
        "[a-zéß'&;%+#() ]{0,12}".prop_map(Literal::Text),
        "[0-9TZ:. -]{0,24}".prop_map(Literal::DateTime),
    ]
}

fn path() -> impl Strategy<Value = Path> {
    vec(name(), 1..4).prop_map(Path)
}

fn expression() -> impl Strategy<Value = Expr> {
    let leaf = prop_oneof![
        literal().prop_map(Expr::Literal),
        path().prop_map(Expr::Path),
        name().prop_map(Expr::Parameter),
    ];
    leaf.prop_recursive(5, 40, 4, |inner| {
        let boxed = || inner.clone().prop_map(Box::new);
        prop_oneof![
            boxed().prop_map(Expr::Not),
            boxed().prop_map(Expr::Negate),
            (proptest::sample::select(Binary::ALL.to_vec()), boxed(), boxed())
                .prop_map(|((op, _), left, right)| Expr::Binary { op, left, right }),
            (boxed(), vec(inner.clone(), 1..4)).prop_map(|(value, list)| Expr::In { value, list }),
            (proptest::sample::select(Function::ALL.to_vec()), vec(inner.clone(), 3)).prop_map(
                |((function, _, _, most), mut arguments)| {
                    arguments.truncate(most);
                    Expr::Call { function, arguments }
                }
            ),
            (path(), any::<bool>(), name(), boxed()).prop_map(|(path, all, variable, body)| {
                let quantifier = if all { Quantifier::All } else { Quantifier::Any };
                Expr::Lambda { path, quantifier, body: Some((variable, body)) }
            }),
            path().prop_map(|path| Expr::Lambda { path, quantifier: Quantifier::Any, body: None }),
            (path(), option::of(boxed())).prop_map(|(path, filter)| Expr::Count { path, filter }),
        ]
    })
}

fn options(expand: BoxedStrategy<Vec<Expand>>) -> impl Strategy<Value = Options> {
    let by = prop_oneof![
        path().prop_map(Expr::Path),
        path().prop_map(|path| Expr::Count { path, filter: None })
    ];
    let orderby = (by, any::<bool>()).prop_map(|(by, descending)| OrderBy { by, descending });
    (
        vec(name(), 0..4),
        option::of(expression()),
        expand,
        vec(orderby, 0..3),
        option::of(0..u64::from(u32::MAX)),
        option::of(0..u64::from(u32::MAX)),
    )
        .prop_map(|(select, filter, expand, orderby, top, skip)| Options {
            select,
            filter,
            expand,
            orderby,
            top,
            skip,
            ..Options::default()
        })
}

fn expands() -> BoxedStrategy<Vec<Expand>> {
    let of = |inner: BoxedStrategy<Vec<Expand>>| {
        let one = (name(), any::<bool>(), options(inner))
            .prop_map(|(navigation, count, options)| Expand { navigation, count, options });
        vec(one, 0..3).boxed()
    };
    of(of(Just(Vec::new()).boxed()))
}

fn key() -> impl Strategy<Value = Key> {
    let value =
        || prop_oneof![literal().prop_map(KeyValue::Literal), name().prop_map(KeyValue::Alias),];
    prop_oneof![
        value().prop_map(Key::Id),
        proptest::collection::btree_map(name(), value(), 1..4)
            .prop_map(|parts| Key::Named(parts.into_iter().collect())),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let tail = prop_oneof![
        Just((None, None, false)),
        Just((None, None, true)),
        name().prop_map(|n| (Some(n), None, false)),
        (name(), any::<bool>()).prop_map(|(n, count)| (None, Some(n), count)),
    ];
    let extra = (
        vec((name(), literal()), 0..2),
        vec(("[a-z=]{1,8}", "\\PC{0,12}"), 0..2),
        option::of("[a-z;=/]{1,20}"),
    );
    (name(), option::of(key()), tail, options(expands()), extra).prop_map(
        |(resource, key, (links, property, count), options, (aliases, custom, format))| Request {
            resource,
            key,
            links,
            property,
            count,
            options: Options { aliases, custom, format, ..options },
        },
    )
}

proptest! {
    #[test]
    fn a_printed_expression_reads_back(tree in expression()) {
        prop_assert_eq!(parse_filter(&tree.to_string()), Ok(tree));
    }

    #[test]
    fn a_printed_request_reads_back(request in request()) {
        prop_assert_eq!(parse(&request.to_string()), Ok(request));
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,200}") {
        let _ = parse(&text);
        let _ = parse_filter(&text);
    }

    #[test]
    fn no_mixture_of_tokens_makes_the_parser_panic(tokens in vec(proptest::sample::select(vec![
        "device", "(", ")", "'", "$filter=", "$expand=", "$select=", "&", ";", ",", "/", "any(",
        "x:", " eq ", " and ", " in ", "not ", "-", "1", "%27", "%", "+", "@a", "datetime'", "?",
        "$count", "=", " ", "é", "startswith(", "null",
    ]), 0..40)) {
        let text = tokens.concat();
        let _ = parse(&text);
        let _ = parse_filter(&text);
    }

    #[test]
    fn a_cut_request_is_read_or_refused(request in request(), cut in 0.0..1.0_f64) {
        let text = request.to_string();
        let at = (text.len() as f64 * cut) as usize;
        let _ = parse(text.get(..at).unwrap_or(&text));
    }
}
