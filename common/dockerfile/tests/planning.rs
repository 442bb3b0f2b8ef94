//! Which stages are needed and what they begin with.

use std::collections::BTreeMap;

use minke_common_dockerfile::parse;
use minke_common_dockerfile::plan::{Base, Origin, origin, plan};

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect()
}

const FILE: &str = "\
ARG TAG=12
ARG BASE=debian:$TAG
FROM $BASE AS common
FROM common AS tools
RUN make
FROM --platform=$BUILDPLATFORM golang AS unused
FROM scratch AS out
COPY --from=tools /a /a
COPY --from=0 /b /b
COPY --from=busybox /bin /bin
RUN --mount=type=bind,from=common,target=/c true
FROM out AS debug
";

#[test]
fn only_needed_stages_are_built_in_order() {
    let file = parse(FILE).unwrap();
    let builtin = map(&[("BUILDPLATFORM", "linux/amd64")]);
    let all = plan(&file, None, &BTreeMap::new(), &builtin).unwrap();
    assert_eq!(all.order, [0, 1, 3, 4]);
    assert_eq!(all.bases[0].0, Base::Image("debian:12".into()));
    assert_eq!(all.bases[1].0, Base::Stage(0));
    assert_eq!(all.bases[2].1.as_deref(), Some("linux/amd64"));
    assert_eq!(all.bases[3].0, Base::Scratch);
    let tools = plan(&file, Some("TOOLS"), &map(&[("TAG", "13")]), &builtin).unwrap();
    assert_eq!((tools.order.as_slice(), tools.target()), ([0, 1].as_slice(), 1));
    assert_eq!(tools.bases[0].0, Base::Image("debian:13".into()));
    assert_eq!(origin(&file, 3, "busybox"), Origin::Image("busybox".into()));
    assert_eq!(origin(&file, 3, "1"), Origin::Stage(1));
    assert_eq!(origin(&file, 3, "debug"), Origin::Image("debug".into()));
}

#[test]
fn a_missing_target_or_an_empty_image_is_said() {
    let file = parse(FILE).unwrap();
    let none = BTreeMap::new();
    let message = plan(&file, Some("toolz"), &none, &none).unwrap_err().to_string();
    assert!(message.contains("expected one of common, tools"), "{message}");
    let file = parse("FROM a\nFROM $NOTHING\n").unwrap();
    let error = plan(&file, None, &none, &none).unwrap_err();
    assert_eq!((error.line, error.column), (2, 1));
}
