// Finds a service through go-zero's own registration in etcd and calls it a few times.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/zeromicro/go-zero/core/discov"
	"github.com/zeromicro/go-zero/core/logx"
	"github.com/zeromicro/go-zero/zrpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

func main() {
	logx.Disable()
	client, err := zrpc.NewClient(zrpc.RpcClientConf{
		Etcd:    discov.EtcdConf{Hosts: []string{os.Args[1]}, Key: os.Args[2]},
		Timeout: 5000,
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	health := healthpb.NewHealthClient(client.Conn())
	for range 20 {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		answer, err := health.Check(ctx, &healthpb.HealthCheckRequest{})
		cancel()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(answer.Status)
	}
}
