// SPDX-License-Identifier: MIT
//
// client.go - so many GETs at a time, of one URL, by Go's net/http
//
//	client URL CONCURRENT SECONDS THREADS
package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

func main() {
	url := os.Args[1]
	concurrent, _ := strconv.Atoi(os.Args[2])
	seconds, _ := strconv.ParseFloat(os.Args[3], 64)
	threads, _ := strconv.Atoi(os.Args[4])
	runtime.GOMAXPROCS(threads)
	client := &http.Client{Transport: &http.Transport{MaxIdleConns: concurrent,
		MaxIdleConnsPerHost: concurrent}}
	begin := time.Now().Add(time.Duration(seconds * 0.5e9))
	end := begin.Add(time.Duration(seconds * 1e9))
	var total int64
	var all sync.WaitGroup
	for i := 0; i < concurrent; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			for now := time.Now(); now.Before(end); now = time.Now() {
				r, err := client.Get(url)
				if err != nil {
					log.Fatal(err)
				}
				io.Copy(io.Discard, r.Body)
				r.Body.Close()
				if r.StatusCode != 200 {
					log.Fatal(r.Status)
				}
				if now.After(begin) {
					atomic.AddInt64(&total, 1)
				}
			}
		}()
	}
	all.Wait()
	fmt.Printf("{\"rate\":%.0f}\n", float64(total)/seconds)
}
