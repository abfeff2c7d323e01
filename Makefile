.PHONY: build test race lint bench demo ci

build:
	go build -trimpath -o natsrelay ./cmd/natsrelay

test:
	go test ./...

race:
	go test -race ./...

lint:
	test -z "$$(gofmt -l .)"
	go vet ./...
	go tool staticcheck ./...

bench:
	go test -run '^$$' -bench . ./bench/... ./relay/...

demo:
	go run ./cmd/natsrelay demo

ci:
	.ci/run
