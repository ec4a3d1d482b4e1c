# The image of flink.yaml's Job: beam-retrain's, with Java and Beam's job server. After `make engines`, from the repository's root:
#   docker build --file deploy/kubernetes/flink.Dockerfile --tag beam-retrain-flink:0.5.0.dev0 .
ARG JAVA=eclipse-temurin:17-jre
ARG IMAGE=beam-retrain:0.5.0.dev0
FROM ${JAVA} AS java
FROM ${IMAGE}
COPY --from=java /opt/java/openjdk /opt/java
COPY .engines/flink /opt/flink-job-server
ENV PATH=/opt/java/bin:$PATH
