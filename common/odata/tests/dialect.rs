//! The dialect by example: each captured request, each quirk, each refusal.

use minke_common_odata::{
    Binary, Expr, Key, KeyValue, Literal, Path, Problem, limits, parse, parse_filter,
};

fn text(value: &str) -> KeyValue {
    KeyValue::Literal(Literal::Text(value.to_owned()))
}

#[test]
fn every_captured_request_reads_and_reads_back() {
    let lines = include_str!("../../../cloud/db/tests/captured.txt").lines();
    let mut read = 0;
    for line in lines.filter(|line| !line.starts_with('#')) {
        let request = line.split('\t').nth(1).expect("method, path, body");
        let tree = parse(request).unwrap_or_else(|error| panic!("{request}: {error}"));
        assert_eq!(parse(&tree.to_string()), Ok(tree), "{request}");
        read += 1;
    }
    assert!(read > 250, "the corpus holds {read} requests");
}

#[test]
fn and_and_or_group_from_the_left() {
    let tree = parse_filter("x or y and z").expect("it is in the dialect");
    assert_eq!(parse_filter("(x or y) and z"), Ok(tree.clone()));
    assert!(matches!(tree, Expr::Binary { op: Binary::And, .. }));
}

#[test]
fn a_missing_direction_means_descending() {
    let order = parse("device?$orderby=id").expect("valid").options.orderby;
    assert!(order[0].descending);
    let order = parse("device?$orderby=app/name asc,id desc").expect("valid").options.orderby;
    assert_eq!((order[0].descending, order[1].descending), (false, true));
}

#[test]
fn keys_are_ids_names_or_aliases() {
    let key = |request: &str| parse(request).expect(request).key;
    assert_eq!(key("device(5)"), Some(Key::Id(KeyValue::Literal(Literal::Integer(5)))));
    assert_eq!(key("device(uuid='ab')"), Some(Key::Named(vec![("uuid".into(), text("ab"))])));
    assert_eq!(
        key("release_asset(asset_key='a''1',release=401)"),
        Some(Key::Named(vec![
            ("asset_key".into(), text("a'1")),
            ("release".into(), KeyValue::Literal(Literal::Integer(401))),
        ]))
    );
    assert_eq!(key("device(@id)?@id=5"), Some(Key::Id(KeyValue::Alias("id".into()))));
    let aliases = parse("device(@id)?@id=5").expect("valid").options.aliases;
    assert_eq!(aliases, [("id".to_owned(), Literal::Integer(5))]);
}

#[test]
fn encodings_are_equal() {
    let plain = parse("application?$filter=slug eq 'a/b' and app_name ne 'x&y'").expect("valid");
    for other in [
        "application?$filter=slug%20eq%20%27a%2Fb%27%20and%20app_name%20ne%20%27x%26y%27",
        "application?$filter=slug+eq+'a/b'+and+app_name+ne+'x%26y'",
        "/application?%24filter=slug eq 'a/b' and app_name ne 'x&y'",
    ] {
        assert_eq!(parse(other).as_ref(), Ok(&plain), "{other}");
    }
}

#[test]
fn expand_options_part_with_semicolon_or_ampersand() {
    let one = parse("device?$expand=device_tag($select=id;$top=1),image_install/$count");
    let two = parse("device?$expand=device_tag($select=id&$top=1),image_install/$count");
    assert_eq!(one, two);
    assert!(one.expect("valid").options.expand[1].count);
}

#[test]
fn constants_paths_and_lambdas() {
    let read = |filter: &str| parse_filter(filter).expect(filter);
    assert!(matches!(read("dau/any(dau:1 eq 1)"), Expr::Lambda { .. }));
    assert_eq!(read("a/b"), Expr::Path(Path(vec!["a".into(), "b".into()])));
    assert_eq!(read("-5"), Expr::Literal(Literal::Integer(-5)));
    assert_eq!(read("nullable"), Expr::Path(Path(vec!["nullable".into()])));
    assert!(matches!(read("a/$count($filter=b eq 1) gt 2"), Expr::Binary { op: Binary::Gt, .. }));
    assert!(matches!(read("not(slug in ('x/y','z/w'))"), Expr::Not(_)));
    assert!(matches!(read("@__ACTOR_ID eq actor"), Expr::Binary { .. }));
}

#[test]
fn a_refusal_says_where_and_what() {
    for (request, message) in [
        (
            "device?$filter=id eq",
            "$filter at character 6: expected a field, a value, a function or `(`",
        ),
        ("device?$filter=name eq 'x", "$filter at character 11: expected the closing quote"),
        (
            "device?$filter=id eq 99999999999999999999",
            "$filter at character 7: expected a whole number of at most 64 bits",
        ),
        ("device?$filter=(id eq 1", "$filter at character 9: expected `)`"),
        ("device?$filter=id eq 1 2", "$filter at character 9: expected the end"),
        ("device?$filter=nope(id)", "$filter at character 5: expected a known function before `(`"),
        (
            "device?$expand=tag($take=1)",
            "$expand at character 11: unknown option $take in an expand",
        ),
        ("device?$orderby=id down", "$orderby at character 4: expected `asc` or `desc`"),
        ("device?$top=-1", "$top at character 1: expected a whole number from 0 to 4294967295"),
        ("device?$top=1&$top=2", "$top at character 1: given twice"),
        ("device(", "path at character 8: expected a key: a constant, `@name` or `field=value`"),
        ("device?$filter=a%2", "$filter at character 2: expected two hexadecimal digits after `%`"),
        ("", "path at character 1: expected the name of a resource"),
    ] {
        let error = parse(request).expect_err(request);
        assert_eq!(error.to_string(), message, "{request}");
    }
}

#[test]
fn limits_are_named() {
    let refused = |request: String, limit: usize| match parse(&request) {
        Err(error) => match error.problem {
            Problem::Limit { limit: said, .. } => assert_eq!(said, limit, "{error}"),
            other => panic!("{other}"),
        },
        Ok(_) => panic!("{limit} was passed"),
    };
    refused(format!("a?$filter=b eq '{}'", "x".repeat(limits::MAX_LENGTH)), limits::MAX_LENGTH);
    refused(format!("a?$filter={}1{}", "(".repeat(200), ")".repeat(200)), limits::MAX_NESTING);
    refused(format!("a?$filter={}a", "not ".repeat(2000)), limits::MAX_NESTING);
    refused(format!("a?$filter=a{}", " and a".repeat(300)), limits::MAX_DEPTH);
    refused(format!("a?$filter=a{}", " and a".repeat(9000)), limits::MAX_NODES);
    refused(format!("a?$filter=id in (1{})", ",1".repeat(3000)), limits::MAX_LIST);
    refused(format!("a?$select=a{}", ",a".repeat(300)), limits::MAX_NAMES);
    refused(format!("a?$expand=a{}", ",a".repeat(70)), limits::MAX_EXPANDS);
    let deep = format!("a?$expand={}a{}", "a($expand=".repeat(60), ")".repeat(60));
    refused(deep, limits::MAX_NESTING);
    refused(format!("a?{}", "b=1&".repeat(80)), limits::MAX_OPTIONS);
    refused("a".repeat(200), limits::MAX_NAME_LENGTH);
}
