// Package testnet makes what tests and benchmarks need: network namespaces,
// faults and load.
package testnet
