src/lib/deep/inner.h
