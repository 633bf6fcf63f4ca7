// Calls a service by its name in etcd, as any grpc-go program would: etcd's own resolver, round
// robin, one call every few milliseconds. Ends at the end of its input, and tells on one line of
// JSON how many calls it made, which failed, and who answered.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/naming/resolver"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
)

type report struct {
	Calls  int            `json:"calls"`
	Failed []string       `json:"failed"`
	Peers  map[string]int `json:"peers"`
}

func main() {
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(etcd, name string) error {
	client, err := clientv3.NewFromURL(etcd)
	if err != nil {
		return err
	}
	defer client.Close()
	names, err := resolver.NewBuilder(client)
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient("etcd:///"+name,
		grpc.WithResolvers(names),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`))
	if err != nil {
		return err
	}
	defer conn.Close()
	over := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(over)
	}()
	told := report{Failed: []string{}, Peers: map[string]int{}}
	health := healthpb.NewHealthClient(conn)
	ticks := time.NewTicker(5 * time.Millisecond)
	for {
		select {
		case <-over:
			return json.NewEncoder(os.Stdout).Encode(told)
		case <-ticks.C:
			call(health, &told)
		}
	}
}

func call(health healthpb.HealthClient, told *report) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var who peer.Peer
	_, err := health.Check(ctx, &healthpb.HealthCheckRequest{}, grpc.Peer(&who))
	told.Calls++
	if err != nil {
		told.Failed = append(told.Failed, err.Error())
		return
	}
	if told.Calls == 1 {
		fmt.Fprintln(os.Stderr, "calling")
	}
	told.Peers[who.Addr.String()]++
}
