ARG RUST=1.90
ARG DEBIAN=bookworm
FROM rust:${RUST}-${DEBIAN} AS chef
RUN cargo install cargo-chef --locked
WORKDIR app
FROM chef AS planner
COPY . .
RUN cargo chef prepare --recipe-path recipe.json
FROM chef AS builder
COPY --from=planner /app/recipe.json recipe.json
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=secret,id=token,required=true,mode=0400 \
    cargo chef cook --release --recipe-path recipe.json
COPY . .
RUN --network=none cargo build --release --bin app
FROM debian:${DEBIAN}-slim AS runtime
COPY --from=2 /app/target/release/app /usr/local/bin
COPY --from=busybox:latest /bin/busybox /bin/busybox
ENTRYPOINT ["/usr/local/bin/app"]
