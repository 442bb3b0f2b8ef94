FROM python:3.12-slim-bookworm
LABEL org.opencontainers.image.title="sensor hub" \
      org.opencontainers.image.licenses=Apache-2.0 maintainer="someone <someone@example.org>"
ENV PYTHONUNBUFFERED 1
# system packages
RUN apt-get update \
 && apt-get install -y --no-install-recommends \
      build-essential \
      # needed by pillow
      libjpeg-dev \

      zlib1g-dev \
 && rm -rf /var/lib/apt/lists/*
COPY requirements.txt /tmp/
RUN pip install --no-cache-dir -r /tmp/requirements.txt
COPY ["src dir/", "/app/"]
WORKDIR /app
VOLUME ["/data"]
EXPOSE 80 443
STOPSIGNAL SIGINT
CMD gunicorn -b 0.0.0.0:80 "app:create_app()"
