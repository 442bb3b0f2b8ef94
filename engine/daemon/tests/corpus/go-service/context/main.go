package main

const version = "@VERSION@"

func main() { println(version) }
