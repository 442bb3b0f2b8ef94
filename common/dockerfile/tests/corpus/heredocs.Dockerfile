# syntax=docker/dockerfile:1
FROM debian:bookworm-slim
SHELL ["/bin/bash", "-eo", "pipefail", "-c"]
RUN <<EOT
  set -e
  apt-get update
  apt-get install -y nginx # a comment inside a script
EOT
RUN cat <<-'CONF' > /etc/app.conf && chmod 600 /etc/app.conf
	[main]
	path = $HOME
	CONF
COPY --chmod=0755 <<"EOF" /usr/local/bin/entry
#!/bin/sh
exec "$@"
EOF
COPY <<one <<two /etc/many/
first ${PATH}
one
second
two
ENTRYPOINT ["/usr/local/bin/entry"]
